"use strict";

const $ = (id) => document.getElementById(id);

// A reason in Chinese: by its words, by its form, or what stands behind it in brackets by itself; else as it is.
const REASONS = JSON.parse($("reasons").textContent);
const FORMS = Object.entries(REASONS).filter(([en]) => en.includes("{}")).map(([en, zh]) =>
  [new RegExp(`^${en.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("(.+)")}$`), zh]);
function inChinese(text) {
  if (REASONS[text] !== undefined) return REASONS[text];
  for (const [form, zh] of FORMS) { const found = form.exec(text); if (found) { let at = 1; return zh.replaceAll("{}", () => found[at++]); } }
  const aside = /^(.+) \((.+)\)$/.exec(text);
  return aside ? `${inChinese(aside[1])}（${inChinese(aside[2])}）` : text;
}

