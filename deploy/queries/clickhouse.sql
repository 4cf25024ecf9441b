-- The journal's lines in ClickHouse: a table they are shipped into (deploy/vector/), and the same four questions.

-- Each line once: one that is sent again has the same name and takes the place of the former, at the latest where a
-- query says FINAL. Lines of calls that were never admitted have no name; their moment and request id tell them apart.
CREATE TABLE journal
(
    ev LowCardinality(String),
    call String,
    at DateTime64(3, 'UTC'),
    request_id String,
    model LowCardinality(String),
    upstream_model LowCardinality(String),
    key_id LowCardinality(String),
    key_name LowCardinality(String),
    outcome LowCardinality(String),
    basis LowCardinality(String),
    usage Tuple(input_tokens UInt64, output_tokens UInt64, prompt_tokens_details Tuple(cached_tokens UInt64)),
    generated Tuple(input_tokens UInt64, output_tokens UInt64, prompt_tokens_details Tuple(cached_tokens UInt64)),
    calls Array(Tuple(basis String))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (ev, call, at, request_id);

-- Where no shipper runs, the files themselves; what is there is not inserted twice for good.
INSERT INTO journal SELECT * FROM file('calls.jsonl*', 'JSONEachRow', 'ev String, call String, at DateTime64(3, \'UTC\'),
    request_id String, model String, upstream_model String, key_id String, key_name String, outcome String, basis String,
    usage Tuple(input_tokens UInt64, output_tokens UInt64, prompt_tokens_details Tuple(cached_tokens UInt64)),
    generated Tuple(input_tokens UInt64, output_tokens UInt64, prompt_tokens_details Tuple(cached_tokens UInt64)),
    calls Array(Tuple(basis String))')
SETTINGS date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1, input_format_null_as_default = 1,
    input_format_allow_errors_num = 1000;

CREATE VIEW calls AS
SELECT
    call,
    toTimeZone(at, 'Asia/Shanghai') AS local,
    model,
    upstream_model,
    coalesce(nullIf(key_name, ''), nullIf(key_id, ''), '-') AS key,
    outcome,
    basis,
    usage.input_tokens AS input,
    usage.prompt_tokens_details.cached_tokens AS cached,
    usage.output_tokens AS output,
    generated.input_tokens AS generated_input,
    generated.prompt_tokens_details.cached_tokens AS generated_cached,
    generated.output_tokens AS generated_output,
    length(calls) AS upstream_calls
FROM journal FINAL
WHERE ev = 'close';

-- What each key used, by day: `dashseek usage sum --by day --by key --tz Asia/Shanghai`.
SELECT formatDateTime(local, '%Y-%m-%d') AS day, key, count() AS calls,
    sum(input) AS input, sum(cached) AS cached, sum(output) AS output,
    sum(generated_input) AS generated_input, sum(generated_output) AS generated_output
FROM calls GROUP BY day, key ORDER BY day, key;

-- What upstream bills, by month and model: prompt tokens not cached, cached, answers, requests.
SELECT formatDateTime(local, '%Y-%m') AS month, upstream_model,
    sum(generated_input - generated_cached) AS input_cache_miss_tokens,
    sum(generated_cached) AS input_cache_hit_tokens, sum(generated_output) AS output_tokens,
    sum(upstream_calls) AS request_count
FROM calls GROUP BY month, upstream_model ORDER BY month, upstream_model;

-- Why calls fail, and what of them upstream bills all the same.
SELECT outcome, count() AS calls, sum(generated_input + generated_output) AS generated
FROM calls WHERE outcome != 'ok' GROUP BY outcome ORDER BY calls DESC, outcome;

-- How much of a month is only counted, in percent.
SELECT formatDateTime(local, '%Y-%m') AS month,
    round(100 * sumIf(generated_output, basis = 'counted') / sum(generated_output), 2) AS counted_percent
FROM calls GROUP BY month ORDER BY month;
