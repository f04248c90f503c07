-- Step 1 of the journal in PostgreSQL: its tables, and the functions that write them.
--
-- headgate_journal  append-only, with the columns of the journal in a file; divided by months
-- headgate_head     the number of the newest row; windows that ended before `since` (unix seconds) are not kept in the sums any more
-- headgate_calls    one row for each reservation that was about to leave, or that ended: one hold and one end, whoever comes first
-- headgate_spent    what the rows come to on each place, the percent last told of, and the row up to which its past was added
-- headgate_epochs   under which epoch holds of an owner are taken, and since when
--
-- All of them change in one transaction, under one advisory lock (4848002), so any moment's view of them is the journal up to one number. Rows are
-- numbered without gaps, in the order of their commits. The lock is held for one statement, not for as long as a process likes that was stopped
-- in the middle.

CREATE TABLE headgate_journal (
    seq bigint NOT NULL,
    id text NOT NULL,
    kind text NOT NULL CHECK (
        kind IN ('hold', 'extend', 'adopt', 'charge', 'settle', 'lost', 'note', 'seed', 'change', 'price', 'alert')
    ),
    attempt bigint NOT NULL,
    at bigint NOT NULL,
    tenant text NOT NULL, key text NOT NULL, "user" text, feature text,
    route text NOT NULL, model text NOT NULL, deployment text NOT NULL, source text NOT NULL,
    amount bigint NOT NULL, billed bigint NOT NULL, saved bigint NOT NULL,
    prompt_tokens bigint NOT NULL, completion_tokens bigint NOT NULL, cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL, reasoning_tokens bigint NOT NULL, estimated smallint NOT NULL,
    scopes text NOT NULL, prices text NOT NULL, detail text,
    checksum bigint NOT NULL,
    currency text NOT NULL DEFAULT 'USD' CHECK (currency = 'USD'),
    PRIMARY KEY (seq, at)
) PARTITION BY RANGE (at);

CREATE INDEX headgate_journal_usage ON headgate_journal (tenant, at) WHERE kind IN ('charge', 'settle', 'lost', 'note');
CREATE INDEX headgate_journal_ids ON headgate_journal (id);
CREATE INDEX headgate_journal_rare ON headgate_journal (kind, seq) WHERE kind IN ('lost', 'seed', 'change', 'price', 'alert');

CREATE FUNCTION headgate_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the journal is append-only';
END $$;

CREATE TRIGGER headgate_journal_keeps BEFORE UPDATE OR DELETE ON headgate_journal
    FOR EACH ROW EXECUTE FUNCTION headgate_append_only();
CREATE TRIGGER headgate_journal_stays BEFORE TRUNCATE ON headgate_journal
    FOR EACH STATEMENT EXECUTE FUNCTION headgate_append_only();

-- Rows of months that nobody divided off.
CREATE TABLE headgate_journal_rest PARTITION OF headgate_journal DEFAULT;

CREATE FUNCTION headgate_add_month(month timestamptz) RETURNS void LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    first timestamp := date_trunc('month', month AT TIME ZONE 'UTC');
    name text := 'headgate_journal_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF headgate_journal FOR VALUES FROM (%s) TO (%s)', name,
            (extract(epoch FROM first) * 1000000)::bigint,
            (extract(epoch FROM first + interval '1 month') * 1000000)::bigint
        );
    END IF;
EXCEPTION WHEN check_violation OR duplicate_table THEN
    NULL; -- rows of this month lie in the rest already, or another process was quicker
END $$;

SELECT headgate_add_month(now()), headgate_add_month(now() + interval '1 month');

CREATE TABLE headgate_head (one boolean PRIMARY KEY DEFAULT true CHECK (one), seq bigint NOT NULL, since bigint NOT NULL);
INSERT INTO headgate_head (seq, since) VALUES (0, 0);

-- `number`: up to which, at least, a till must have been filled to know its end. `due`: an hour after nobody attended to it any more.
CREATE TABLE headgate_calls (
    id text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('open', 'settled', 'lost', 'released')),
    noted boolean NOT NULL DEFAULT false,
    owners text[] NOT NULL DEFAULT '{}',
    scopes text NOT NULL DEFAULT '[]',
    entry text NOT NULL DEFAULT '',
    amount bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    lease double precision NOT NULL DEFAULT 0,
    number bigint NOT NULL DEFAULT 0,
    due timestamptz,
    touched timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX headgate_calls_open ON headgate_calls (due) WHERE state = 'open';
CREATE INDEX headgate_calls_ended ON headgate_calls (touched) WHERE state <> 'open';

CREATE TABLE headgate_spent (
    owner text NOT NULL,
    "window" text NOT NULL,
    account text NOT NULL,
    spent numeric NOT NULL DEFAULT 0,
    told integer NOT NULL DEFAULT 0,
    seeded bigint,
    PRIMARY KEY (owner, "window", account)
) WITH (fillfactor = 80);
CREATE INDEX headgate_spent_windows ON headgate_spent ("window");

CREATE TABLE headgate_epochs (owner text PRIMARY KEY, epoch bigint NOT NULL, at timestamptz NOT NULL);

-- Write a batch of acts, each `{act, id, rows, ...}`, in the order hold, extend, end; of one act and id there is at most one.
--
--   hold, extend      what headgate_calls keeps; `fence`: the epochs, by owner, that must be in force
--   settle, lost      end a call, once; lost only if it still holds that `amount`. `note` too, which is written even if there is no call to end
--   release           an id that nobody knows is not to be dispatched any more
--   alert             `told`: owner, window, account, percent
--   once, write       rows of which there is one, and rows
--
-- `sums`: owner, window, account, and what the rows of an act add there. What is taken is written; what is not changes nothing.
-- `watched`: owner, window, account of the sums to be told.
CREATE FUNCTION headgate_post(acts jsonb, watched jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    written bigint;
    fenced text[];
    kinds text[];
    done text[] := '{}';
    taken bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(4848002);
    SELECT seq INTO last FROM headgate_head;
    SELECT array_agg(DISTINCT a ->> 'act') INTO kinds FROM jsonb_array_elements(acts) a;

    SELECT coalesce(array_agg(a ->> 'id'), '{}') INTO fenced FROM jsonb_array_elements(acts) a
    WHERE EXISTS (
        SELECT FROM jsonb_each_text(a -> 'fence') f LEFT JOIN headgate_epochs e ON e.owner = f.key
        WHERE e.epoch IS DISTINCT FROM f.value::bigint
    );

    IF 'hold' = ANY (kinds) THEN
        WITH held AS (
            INSERT INTO headgate_calls (id, state, owners, scopes, entry, amount, tokens, lease, due)
            SELECT a ->> 'id', 'open', ARRAY(SELECT jsonb_array_elements_text(a -> 'owners')), a ->> 'scopes', a ->> 'entry',
                (a ->> 'amount')::bigint, (a ->> 'tokens')::bigint, (a ->> 'lease')::double precision,
                now() + interval '1 hour' + interval '1 second' * (a ->> 'lease')::double precision
            FROM jsonb_array_elements(acts) a
            WHERE a ->> 'act' = 'hold' AND a ->> 'id' <> ALL (fenced)
            ON CONFLICT (id) DO NOTHING
            RETURNING id
        )
        SELECT done || coalesce(array_agg('hold ' || id), '{}') INTO done FROM held;
    END IF;

    IF 'extend' = ANY (kinds) THEN
        WITH extended AS (
            UPDATE headgate_calls c SET amount = (a ->> 'amount')::bigint FROM jsonb_array_elements(acts) a
            WHERE a ->> 'act' = 'extend' AND a ->> 'id' <> ALL (fenced)
                AND c.id = a ->> 'id' AND c.state = 'open' AND c.amount < (a ->> 'amount')::bigint
            RETURNING c.id
        )
        SELECT done || coalesce(array_agg('extend ' || id), '{}') INTO done FROM extended;
    END IF;

    IF 'release' = ANY (kinds) THEN
        WITH released AS (
            INSERT INTO headgate_calls (id, state) SELECT a ->> 'id', 'released' FROM jsonb_array_elements(acts) a
            WHERE a ->> 'act' = 'release'
            ON CONFLICT (id) DO NOTHING
            RETURNING id
        )
        SELECT done || coalesce(array_agg('release ' || id), '{}') INTO done FROM released;
    END IF;

    IF 'lost' = ANY (kinds) THEN
        WITH lost AS (
            UPDATE headgate_calls c SET state = 'lost', number = last + 1, touched = now() FROM jsonb_array_elements(acts) a
            WHERE a ->> 'act' = 'lost' AND c.id = a ->> 'id' AND c.state = 'open' AND c.amount = (a ->> 'amount')::bigint
            RETURNING c.id
        )
        SELECT done || coalesce(array_agg('lost ' || id), '{}') INTO done FROM lost;
    END IF;

    IF 'settle' = ANY (kinds) THEN
        WITH settled AS (
            INSERT INTO headgate_calls AS c (id, state, number) SELECT a ->> 'id', 'settled', last + 1 FROM jsonb_array_elements(acts) a
            WHERE a ->> 'act' = 'settle'
            ON CONFLICT (id) DO UPDATE SET state = 'settled', number = excluded.number, touched = now()
                WHERE c.state IN ('open', 'released')
            RETURNING id
        )
        SELECT done || coalesce(array_agg('settle ' || id), '{}') INTO done FROM settled;
    END IF;

    IF 'note' = ANY (kinds) THEN
        WITH noted AS (
            INSERT INTO headgate_calls AS c (id, state, noted, number)
            SELECT a ->> 'id', 'settled', true, last + 1 FROM jsonb_array_elements(acts) a
            WHERE a ->> 'act' = 'note'
            ON CONFLICT (id) DO UPDATE SET noted = true, touched = now(),
                state = CASE c.state WHEN 'lost' THEN 'lost' ELSE 'settled' END,
                number = CASE WHEN c.state IN ('open', 'released') THEN excluded.number ELSE c.number END
                WHERE NOT c.noted
            RETURNING id
        )
        SELECT done || coalesce(array_agg('note ' || id), '{}') INTO done FROM noted;
    END IF;

    SELECT coalesce(array_agg(n), '{}') INTO taken FROM jsonb_array_elements(acts) WITH ORDINALITY o (a, n)
    WHERE CASE a ->> 'act'
        WHEN 'write' THEN true
        WHEN 'once' THEN NOT EXISTS (
            SELECT FROM headgate_journal j
            WHERE j.id = a -> 'rows' -> 0 ->> 0 AND j.kind = a -> 'rows' -> 0 ->> 1 AND j.attempt = (a -> 'rows' -> 0 ->> 2)::bigint
        )
        WHEN 'alert' THEN NOT EXISTS (
            SELECT FROM headgate_spent s
            WHERE s.owner = a -> 'told' ->> 0 AND s."window" = a -> 'told' ->> 1 AND s.account = a -> 'told' ->> 2
                AND s.told >= (a -> 'told' ->> 3)::integer
        )
        ELSE (a ->> 'act') || ' ' || (a ->> 'id') = ANY (done)
    END;

    INSERT INTO headgate_journal (
        seq, id, kind, attempt, at, tenant, key, "user", feature, route, model, deployment, source, amount, billed, saved, prompt_tokens,
        completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, estimated, scopes, prices, detail, checksum
    )
    SELECT last + row_number() OVER (ORDER BY o.n, r.n), v ->> 0, v ->> 1, (v ->> 2)::bigint, (v ->> 3)::bigint, v ->> 4, v ->> 5, v ->> 6,
        v ->> 7, v ->> 8, v ->> 9, v ->> 10, v ->> 11, (v ->> 12)::bigint, (v ->> 13)::bigint, (v ->> 14)::bigint, (v ->> 15)::bigint,
        (v ->> 16)::bigint, (v ->> 17)::bigint, (v ->> 18)::bigint, (v ->> 19)::bigint, (v ->> 20)::smallint, v ->> 21, v ->> 22, v ->> 23,
        (v ->> 24)::bigint
    FROM jsonb_array_elements(acts) WITH ORDINALITY o (a, n), jsonb_array_elements(o.a -> 'rows') WITH ORDINALITY r (v, n)
    WHERE o.n = ANY (taken);
    GET DIAGNOSTICS written = ROW_COUNT;
    UPDATE headgate_head SET seq = last + written WHERE written > 0;

    IF kinds && '{settle,lost,note,write}' THEN
        INSERT INTO headgate_spent AS s (owner, "window", account, spent)
        SELECT p ->> 0, p ->> 1, p ->> 2, sum((p ->> 3)::numeric)
        FROM jsonb_array_elements(acts) WITH ORDINALITY o (a, n), jsonb_array_elements(o.a -> 'sums') p
        WHERE o.n = ANY (taken)
        GROUP BY 1, 2, 3
        ON CONFLICT (owner, "window", account) DO UPDATE SET spent = s.spent + excluded.spent;
    END IF;

    IF 'alert' = ANY (kinds) THEN
        INSERT INTO headgate_spent AS s (owner, "window", account, told)
        SELECT a -> 'told' ->> 0, a -> 'told' ->> 1, a -> 'told' ->> 2, max((a -> 'told' ->> 3)::integer)
        FROM jsonb_array_elements(acts) WITH ORDINALITY o (a, n)
        WHERE o.n = ANY (taken) AND a ->> 'act' = 'alert'
        GROUP BY 1, 2, 3
        ON CONFLICT (owner, "window", account) DO UPDATE SET told = greatest(s.told, excluded.told);
    END IF;

    RETURN json_build_object(
        'written', (
            SELECT json_agg(
                json_build_array(
                    o.n = ANY (taken), a ->> 'act' IN ('hold', 'extend') AND a ->> 'id' = ANY (fenced), c.state, coalesce(c.number, 0)
                ) ORDER BY o.n
            )
            FROM jsonb_array_elements(acts) WITH ORDINALITY o (a, n) LEFT JOIN headgate_calls c ON c.id = a ->> 'id'
        ),
        'sums', (
            SELECT json_agg(json_build_array(s.account, s."window", s.spent, s.told))
            FROM jsonb_array_elements(watched) w JOIN headgate_spent s
                ON s.owner = w ->> 0 AND s."window" = w ->> 1 AND s.account = w ->> 2
        ),
        'epochs', (
            SELECT json_object_agg(e.owner, e.epoch) FROM headgate_epochs e
            WHERE e.owner IN (
                SELECT jsonb_object_keys(a -> 'fence') FROM jsonb_array_elements(acts) a WHERE a ->> 'id' = ANY (fenced)
            )
        )
    );
END $$;

-- Begin a new epoch of an owner, and say what is spent and open then. Nothing, when another process began one since the epoch `seen`, less than
-- `courtesy` seconds ago: it may be about to fill a till with that.
CREATE FUNCTION headgate_begin(whose text, seen bigint, courtesy double precision) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    begun bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(4848002);
    INSERT INTO headgate_epochs AS e (owner, epoch, at) VALUES (whose, 1, clock_timestamp())
    ON CONFLICT (owner) DO UPDATE SET epoch = e.epoch + 1, at = clock_timestamp()
        WHERE e.epoch = seen OR e.at <= clock_timestamp() - courtesy * interval '1 second' OR e.at > clock_timestamp()
    RETURNING epoch INTO begun;
    IF begun IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN json_build_object(
        'epoch', begun,
        'number', (SELECT seq FROM headgate_head),
        'spent', (SELECT json_agg(json_build_array(account, "window", spent)) FROM headgate_spent WHERE owner = whose),
        'open', (
            SELECT json_agg(json_build_array(id, scopes, amount, tokens, lease) ORDER BY id) FROM headgate_calls
            WHERE state = 'open' AND whose = ANY (owners)
        )
    );
END $$;
