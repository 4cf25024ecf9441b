"""The translators: DashScope on one side, OpenAI-style servers on the other, a neutral vocabulary between.

Pure rooms: no sockets, clocks, randomness, logs or files. The shell hands in bytes and gets bytes back.

- `dialogue` is the vocabulary all tongues meet in: `Call`, `Message`, `Usage`; `faults` is the closed set of errors.
- `tongue` is what the shell needs of a caller's protocol. Two are there: `dashscope` and `compatible`, its OpenAI-style
  surface; in each `call` and its parts take JSON in, `packets` or `chunks` lay answers out.
- `deepseek` is the vendor's chat template: what a prompt and a tool call are in tokens; `catalogue` knows the models.
- `openai` is the upstream's: `request` and its parts (body out), `chunks` and its `stencil`, `failures` (answers in).
- `answer` is what a stream and a reply share, `collected` the reply; it grows in each `choice`, of which some need
  `toolcalls`, `stops` and `thinktags`.
- `tokens` counts text, `usage` makes figures of it and reconciles them with upstream's.
- `sse` cuts upstream's bytes into events; `pipe` is the whole way of an answer, and its one state machine.

What is made anew for every call is a `NamedTuple`: as immutable as a frozen dataclass, which pays 0.25 us for each of
its fields, a hundred of them in a small call.
"""
