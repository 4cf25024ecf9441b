"""The shell: sockets, clocks, ids, keys, limits and logs; it moves bytes and knows no field.

A call comes in by `downstream`, takes its way in `call`, and leaves by `upstream`. Top down, as in `setup.cfg`:

- `commands` is what is typed; `protocol` is the protocol written down, and held against any gateway.
- `server` is the process: workers, signals, reloads; its `routes` say which path speaks which tongue.
- `admin` is the other port: probes, metrics, pages.
- `call` is the way of a call. `handler` begins and closes it and notices who hangs up, `prepare` reads, checks and
  counts it and lets it in, `forward` asks upstream, `relay` moves a stream, `record` writes down what is billed.
  `timeouts` has each wait and what its end means, `budgets` what may be used in a day or a month,
  `past_use` what was before the process began.
- `simulation` is upstreams to try things on. `inspector` keeps the last calls, its `key_mask` before anything is kept.
  `telemetry` is logs, metrics and spans; a line's fields are in its `logs`.
- `downstream` and `upstream` are the doors: they alone know HTTP. `upstream.pools` chooses and tries again.
- `admission` is keys and limits, `metering` the journal and all that reads it, `vocabulary` the tokens.
"""
