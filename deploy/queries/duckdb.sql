-- The journal's own files, read where they lie, by DuckDB: duckdb < deploy/queries/duckdb.sql
-- An exported table needs only the queries: CREATE VIEW calls AS FROM 'calls.parquet/*.parquet' (or 'calls.csv').

SET TimeZone = 'Asia/Shanghai';

-- Each call once: a line that lies twice (a copy, a shipper that sends again) has the same name. Torn lines are left out.
CREATE VIEW calls AS
SELECT
    call,
    "at",
    model,
    upstream_model,
    coalesce(key_name, key_id, '-') AS key,
    outcome,
    basis,
    usage.input_tokens AS input,
    coalesce(usage.prompt_tokens_details.cached_tokens, 0) AS cached,
    usage.output_tokens AS output,
    generated.input_tokens AS generated_input,
    coalesce(generated.prompt_tokens_details.cached_tokens, 0) AS generated_cached,
    generated.output_tokens AS generated_output,
    len(calls) AS upstream_calls
FROM read_json('calls.jsonl*', format = 'newline_delimited', ignore_errors = true, columns = {
    ev: 'VARCHAR', call: 'VARCHAR', "at": 'TIMESTAMPTZ', request_id: 'VARCHAR', model: 'VARCHAR',
    upstream_model: 'VARCHAR', key_id: 'VARCHAR', key_name: 'VARCHAR', outcome: 'VARCHAR', basis: 'VARCHAR',
    usage: 'STRUCT(input_tokens BIGINT, output_tokens BIGINT, prompt_tokens_details STRUCT(cached_tokens BIGINT))',
    generated: 'STRUCT(input_tokens BIGINT, output_tokens BIGINT, prompt_tokens_details STRUCT(cached_tokens BIGINT))',
    calls: 'STRUCT(basis VARCHAR)[]'
})
WHERE ev = 'close'
QUALIFY call IS NULL OR row_number() OVER (PARTITION BY call ORDER BY "at") = 1;

-- What each key used, by day: `dashseek usage sum --by day --by key --tz Asia/Shanghai`.
SELECT strftime("at", '%Y-%m-%d') AS day, key, count(*) AS calls,
    sum(input) AS input, sum(cached) AS cached, sum(output) AS output,
    sum(generated_input) AS generated_input, sum(generated_output) AS generated_output
FROM calls GROUP BY ALL ORDER BY ALL;

-- What upstream bills, by month and model: prompt tokens not cached, cached, answers, requests.
SELECT strftime("at", '%Y-%m') AS month, upstream_model, sum(generated_input - generated_cached) AS input_cache_miss_tokens,
    sum(generated_cached) AS input_cache_hit_tokens, sum(generated_output) AS output_tokens,
    sum(upstream_calls) AS request_count
FROM calls GROUP BY ALL ORDER BY ALL;

-- Why calls fail, and what of them upstream bills all the same.
SELECT outcome, count(*) AS calls, sum(generated_input + generated_output) AS generated
FROM calls WHERE outcome <> 'ok' GROUP BY ALL ORDER BY calls DESC, outcome;

-- How much of a month is only counted, in percent.
SELECT strftime("at", '%Y-%m') AS month,
    round(100 * sum(generated_output) FILTER (basis = 'counted') / sum(generated_output), 2) AS counted_percent
FROM calls GROUP BY ALL ORDER BY ALL;
