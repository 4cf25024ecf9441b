"""What `--help` says of each command, beside its flags; eighty columns, with examples."""

from __future__ import annotations

DASHSEEK = """A reverse proxy that speaks DashScope to its callers and OpenAI-style chat
completions to DeepSeek, with exact token usage on every packet.

\b
Examples:
  dashseek demo
      a real call through the proxy, with nothing to set up
  dashseek serve --upstream https://api.deepseek.com
      callers bring their DeepSeek key as DashScope's
  dashseek COMMAND --help
      all about one command
"""

SERVE = """Serve DashScope text generation before a DeepSeek upstream, until a signal.

\b
Examples:
  dashseek serve --upstream https://api.deepseek.com
  DASHSEEK_UPSTREAM_API_KEY=sk-... dashseek serve \\
      --upstream https://api.deepseek.com --idle-timeout 60
  dashseek serve --upstream http://gpu:8000/v1 --dialect vllm \\
      --map deepseek-v3=my-model --alias qwen-turbo=deepseek-v3
  dashseek serve --config dashseek.toml

Each setting is a flag, a variable (DASHSEEK_IDLE_TIMEOUT), a key of the file
(idle_timeout = 60), or its default; the first that is there counts.
"""

DEMO = """Start an upstream and the proxy before it, show one streamed call packet by
packet, then keep serving and print the lines to paste into a shell or an SDK.

\b
Examples:
  dashseek demo
  dashseek demo --once      exit code 0 only if the call was right
"""

SIMULATE = """Serve a DeepSeek-shaped upstream that answers by script, faults included, so
that a proxy can be tried without a key.

\b
Examples:
  dashseek simulate --port 8090
  dashseek serve --upstream http://127.0.0.1:8090
  dashseek simulate --replay call.json
"""

TRANSLATE = """Read a call from standard input and show the upstream call it becomes, with
one line for every field: kept, renamed, clamped, dropped, emulated or added, and
why. Nothing is sent anywhere. Exit code 1 if the call would be refused.

\b
Examples:
  dashseek translate < call.json
  dashseek translate --dialect vllm --sse --json < call.json
  dashseek translate --api openai < chat.json
  dashseek translate --answer --call call.json < recorded.sse
"""

USAGE = """Add up, check, reconcile or watch usage journals, which serve writes with
--journal-file.

\b
Examples:
  dashseek usage sum calls.jsonl calls.jsonl.*
  dashseek usage sum --by key --by day --csv calls.jsonl*
  dashseek usage verify calls.jsonl*
  dashseek usage reconcile calls.jsonl* --bill amount.csv --bill cost.csv
  dashseek usage tail calls.jsonl
"""

SUM = """Total the calls and tokens of usage journals, gzip'd ones too, by day, model, key
and outcome. Calls without an end are named: they are unknown, not lost. A file that
is there twice is counted once, and named on stderr. Exit code 1 if a line breaks a
rule, or had no price; one that a crash cut off is told on stderr alone.

\b
Examples:
  dashseek usage sum calls.jsonl*
  dashseek usage sum --by model --json calls.jsonl*
  dashseek usage sum --by month --by key --prices prices.toml \\
      --tz Asia/Shanghai --since 2026-11 --until 2026-12 calls.jsonl*
"""

VERIFY = """Check that usage journals are true: each call has one end, sums add up, what was
delivered was generated. Names each line that is wrong; exit code 1 if one is. A
line that a crash cut off is named, and no fault: its call has no end. One rotated
file can be true by itself: the calls its borders cut are counted.

\b
Examples:
  dashseek usage verify calls.jsonl calls.jsonl.1 calls.jsonl.2.gz
  dashseek usage verify calls.jsonl.2.gz
"""

RECONCILE = """Compare a provider's export with usage journals, by day, model, key name and type.
Shows each line that differs, the largest first, with the calls that can be why.
Exit code 1 if a line differs by more than the tolerance, or no day is in both.

Reads what platform.deepseek.com exports, as a ZIP or as its CSV files; of others a
TOML file says which column is what.

\b
Examples:
  dashseek usage reconcile calls.jsonl* --bill usage_data.zip
  dashseek usage reconcile calls.jsonl* --bill amount.csv --bill cost.csv \\
      --prices prices.toml --key dashseek --tolerance 0.1%
  dashseek usage reconcile calls.jsonl* --bill export.csv --mapping theirs.toml
"""

TAIL = """Show the last calls of a usage journal, one line each, then each call as it ends.

\b
Examples:
  dashseek usage tail calls.jsonl
  dashseek usage tail --lines 100 --no-follow calls.jsonl
"""

EXPORT = """Write one row for each call of usage journals: CSV, SQLite, or Parquet (which needs
pip install '.[parquet]'). Repeated, or continued after a break, it adds what
is not there yet: each call once. One export at a time writes a table, and a second
one ends at once with code 2. deploy/export.md says what each column is.

\b
Examples:
  dashseek usage export calls.jsonl* --to calls.sqlite
  dashseek usage export calls.jsonl* --to 2026-11.csv --unknown \\
      --tz Asia/Shanghai --since 2026-11 --until 2026-12
  dashseek usage export calls.jsonl* --to calls.parquet
"""

KEYS = """List and edit the file of --keys-file, which lists the callers' keys by their
digests. Who serves reads it anew within a second.

\b
Examples:
  dashseek keys add keys.toml --name "team a" --limits 'rpm=60 tpm=100000'
  dashseek keys list keys.toml --journal calls.jsonl
  dashseek keys revoke keys.toml "team a"
"""

KEYS_LIST = """List the keys of a file: name, fingerprint, models, limits; with --journal what
each has used, and when last. No key can be shown: the file has digests alone.

\b
Examples:
  dashseek keys list keys.toml
  dashseek keys list keys.toml --journal calls.jsonl --journal calls.jsonl.1
"""

KEYS_ADD = """Make a key, print it this once, and add its digest to a keys file; --stdin reads a
key instead. A key that cannot be printed is not added. The rest of the file stays
as it is, and the file as it was stays beside it (keys.toml~). A file that is not
there is made.

\b
Examples:
  dashseek keys add keys.toml --name "team a" > team-a.key
  dashseek keys add keys.toml --name ci --model deepseek-v3 --limits rpm=10
"""

KEYS_REVOKE = """Take the keys of a name, or the one key of a fingerprint, out of a keys file. The
rest stays as it is, and the file as it was stays beside it (keys.toml~).

\b
Examples:
  dashseek keys revoke keys.toml "team a"
  dashseek keys revoke keys.toml 9f86d081884c
"""

DIGEST = """Read a caller's key from standard input, or ask for it, and print its entry for
the keys file: the SHA-256, from which nobody can get the key.

\b
Examples:
  dashseek keys digest --name "team a" < key.txt >> keys.toml
  openssl rand -hex 24 | tee key.txt | dashseek keys digest --name ci
"""

CHECK = """Judge settings as serve would, without serving: takes the same flags, variables
and file, and says what is wrong, where it was said, and what would be right.

\b
Examples:
  dashseek check --config dashseek.toml
  dashseek check --config dashseek.toml --print
      every setting, with where it was said; secrets are not shown
  dashseek check --config dashseek.toml --against next.toml
      what a reload to the second file would change, and what stays
  DASHSCOPE_API_KEY=sk-... dashseek check --online \\
      --upstream https://api.deepseek.com
      one small call through all of it; a few tokens
"""

DOCTOR = """Examine this machine and what is around it, a line for each: Python, parser,
packages, vocabulary, open files, ports, journal, Redis, and of each upstream its
name, its connection and whether it takes the key. Costs no tokens.

\b
Examples:
  dashseek doctor --upstream https://api.deepseek.com
  dashseek doctor --config dashseek.toml
"""

CONFORM = """Ask a gateway, anybody's, what DashScope's callers ask, and say where it differs.
URL is the base an SDK is given, ending in /api/v1; the key is read from
DASHSCOPE_API_KEY and is in no report. Says first what it will cost. Exit code 1 if
a rule that must hold is broken, or was not asked for: Ctrl-C, --budget, a gateway too busy.

\b
Examples:
  DASHSCOPE_API_KEY=sk-... dashseek conform \\
      https://dashscope.aliyuncs.com/api/v1 --model deepseek-v3.2
  dashseek conform http://127.0.0.1:8080/api/v1 --only usage --only SSE-1
  dashseek conform http://127.0.0.1:8080/api/v1 --junit conform.xml \\
      --html conform.html --budget 20000
  dashseek conform --api openai http://127.0.0.1:8080/compatible-mode/v1
  dashseek conform --list --model deepseek-r1
"""

COMPLETION = """Print what makes a shell complete commands and flags; bash needs 4.4 or newer.

\b
Examples:
  dashseek completion bash >> ~/.bash_completion
  dashseek completion zsh > "${fpath[1]}/_dashseek"
  dashseek completion fish > ~/.config/fish/completions/dashseek.fish
"""

CALLS = """The calls that a running `dashseek serve --inspect` keeps, for scripts and for bug
reports; people read them at /calls on the admin port.

\b
Examples:
  dashseek serve --inspect --upstream http://127.0.0.1:8090
  dashseek calls list
  dashseek calls export 17 --redact > call.json
"""

CALLS_LIST = """List the calls that are kept, the newest first.

\b
Examples:
  dashseek calls list
  dashseek calls list --json --admin http://127.0.0.1:9001
"""

CALLS_EXPORT = """Print one call, by its number or its request id: both sides with their times, as a
file for `calls replay` and `simulate --replay`. With --redact no text of it is left,
and it plays the same.

\b
Examples:
  dashseek calls export 17 > call.json
  dashseek calls export 17 --redact > to-share.json
"""

CALLS_REPLAY = """Make a recorded call again and say what differs from the answer it had. The key is
read from DASHSCOPE_API_KEY. Exit code 1 if something differs.

\b
Examples:
  dashseek calls replay call.json --to http://127.0.0.1:8080
  dashseek simulate --replay call.json --fast --port 8090
"""
