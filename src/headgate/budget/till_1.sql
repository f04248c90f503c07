-- Step 1 of the till in PostgreSQL: its tables, and the functions that each change one owner under the lock of the owner's row.
--
-- Nothing of this is logged: after a crash, and on a replica that takes over, all tables are empty, so that all is unknown and is filled
-- anew. What is here after a start was here at its end, whole; and no commit waits for the disk.
--
-- Times are unix seconds; `at` is now by the caller's clock, NULL by the server's. Lists of scopes are arrays of one length: window, account,
-- cap (NULL none, below zero suspended), whether tokens are counted.

CREATE UNLOGGED TABLE headgate_till_owners (owner text PRIMARY KEY, epoch bigint NOT NULL);

-- `number`: of the newest row of the journal that it was filled with; `until`: when it is forgotten.
CREATE UNLOGGED TABLE headgate_till_windows (
  owner text NOT NULL,
  window_id text NOT NULL,
  number bigint NOT NULL,
  until double precision NOT NULL,
  PRIMARY KEY (owner, window_id)
);

CREATE UNLOGGED TABLE headgate_till_counters (
  owner text NOT NULL,
  window_id text NOT NULL,
  account text NOT NULL,
  spent numeric NOT NULL,
  held numeric NOT NULL,
  PRIMARY KEY (owner, window_id, account)
) WITH (fillfactor = 50);

-- `due`: when the lease of an open one is over, and when one that has ended is forgotten. `counted`: windows in which its end was.
CREATE UNLOGGED TABLE headgate_till_reservations (
  owner text NOT NULL,
  id text NOT NULL,
  is_open boolean NOT NULL,
  due double precision NOT NULL,
  amount numeric NOT NULL DEFAULT 0,
  tokens numeric NOT NULL DEFAULT 0,
  windows text[] NOT NULL DEFAULT '{}',
  accounts text[] NOT NULL DEFAULT '{}',
  caps numeric[] NOT NULL DEFAULT '{}',
  counts_tokens boolean[] NOT NULL DEFAULT '{}',
  counted text[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (owner, id)
);
CREATE INDEX headgate_till_reservations_due ON headgate_till_reservations (owner, is_open, due);

CREATE FUNCTION headgate_till_balances(whose text, of_windows text[], of_accounts text[], OUT spent numeric[], OUT held numeric[])
LANGUAGE plpgsql AS $$
BEGIN
  SELECT array_agg(coalesce(c.spent, 0) ORDER BY s.place), array_agg(coalesce(c.held, 0) ORDER BY s.place) INTO spent, held
  FROM unnest(of_windows, of_accounts) WITH ORDINALITY AS s(window_id, account, place)
  LEFT JOIN headgate_till_counters c ON c.owner = whose AND c.window_id = s.window_id AND c.account = s.account;
END $$;

-- Money that may still be held everywhere, NULL where a scope refuses. As `room` in room.py.
CREATE FUNCTION headgate_till_room(
  of_caps numeric[], of_tokens boolean[], spent numeric[], held numeric[], needed numeric, tokens numeric
) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN (SELECT CASE WHEN coalesce(bool_or(
      s.cap < 0 OR CASE WHEN s.counts_tokens THEN tokens > 0 AND tokens > s.cap - s.spent - s.held ELSE needed > s.cap - s.spent - s.held END
    ), false) THEN NULL
    ELSE least(9223372036854775807, min(s.cap - s.spent - s.held) FILTER (WHERE NOT s.counts_tokens)) END
  FROM unnest(of_caps, of_tokens, spent, held) AS s(cap, counts_tokens, spent, held));
END $$;

-- What is held on each scope, and so much more.
CREATE FUNCTION headgate_till_added(held numeric[], of_tokens boolean[], money numeric, tokens numeric) RETURNS numeric[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN ARRAY(
    SELECT s.held + CASE WHEN s.counts_tokens THEN tokens ELSE money END
    FROM unnest(held, of_tokens) WITH ORDINALITY AS s(held, counts_tokens, place) ORDER BY s.place);
END $$;

-- Change what is held on each scope, in the windows that there are still, and keep these `until` then at least.
CREATE FUNCTION headgate_till_weigh(
  whose text, of_windows text[], of_accounts text[], of_tokens boolean[], money numeric, tokens numeric, keep_until double precision
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO headgate_till_counters AS c (owner, window_id, account, spent, held)
    SELECT whose, s.window_id, s.account, 0, CASE WHEN s.counts_tokens THEN tokens ELSE money END
    FROM unnest(of_windows, of_accounts, of_tokens) AS s(window_id, account, counts_tokens)
    JOIN headgate_till_windows w ON w.owner = whose AND w.window_id = s.window_id
  ON CONFLICT (owner, window_id, account) DO UPDATE SET held = c.held + excluded.held;
  UPDATE headgate_till_windows w SET until = keep_until
    WHERE w.owner = whose AND w.window_id = ANY(of_windows) AND w.until < keep_until;
END $$;

CREATE FUNCTION headgate_till_time(at double precision) RETURNS double precision
LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(at, extract(epoch FROM clock_timestamp())::double precision); END $$;

CREATE FUNCTION headgate_till_hold(
  whose text, called text, of_windows text[], of_accounts text[], of_caps numeric[], of_tokens boolean[],
  wanted numeric, least_wanted numeric, tokens numeric, lease double precision, at double precision,
  OUT what text, OUT granted numeric, OUT of_epoch bigint, OUT missing text[], OUT spent numeric[], OUT held numeric[]
) LANGUAGE plpgsql AS $$
DECLARE
  known headgate_till_reservations;
  most numeric;
BEGIN
  what := 'unknown';
  SELECT o.epoch INTO of_epoch FROM headgate_till_owners o WHERE o.owner = whose FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  at := headgate_till_time(at);
  SELECT array_agg(s.window_id) INTO missing FROM unnest(of_windows) AS s(window_id) WHERE NOT EXISTS (
    SELECT FROM headgate_till_windows w WHERE w.owner = whose AND w.window_id = s.window_id AND w.until > at);
  IF missing IS NOT NULL THEN RETURN; END IF;
  SELECT b.spent, b.held INTO spent, held FROM headgate_till_balances(whose, of_windows, of_accounts) b;
  SELECT * INTO known FROM headgate_till_reservations r WHERE r.owner = whose AND r.id = called;
  IF known.is_open OR known.due > at THEN
    what := 'granted';
    granted := CASE WHEN known.is_open THEN known.amount ELSE wanted END;
    RETURN;
  END IF;
  most := headgate_till_room(of_caps, of_tokens, spent, held, least_wanted, tokens);
  IF most IS NULL THEN
    what := 'refused';
    RETURN;
  END IF;
  what := 'granted';
  granted := greatest(least_wanted, least(wanted, div(most, 8)));
  PERFORM headgate_till_begin(whose, called, of_windows, of_accounts, of_caps, of_tokens, granted, tokens, at + lease);
  held := headgate_till_added(held, of_tokens, granted, tokens);
END $$;

CREATE FUNCTION headgate_till_begin(
  whose text, called text, of_windows text[], of_accounts text[], of_caps numeric[], of_tokens boolean[],
  money numeric, tokens numeric, deadline double precision
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO headgate_till_reservations (owner, id, is_open, due, amount, tokens, windows, accounts, caps, counts_tokens)
    VALUES (whose, called, true, deadline, money, tokens, of_windows, of_accounts, of_caps, of_tokens)
  ON CONFLICT (owner, id) DO UPDATE SET is_open = true, due = excluded.due, amount = excluded.amount, tokens = excluded.tokens,
    windows = excluded.windows, accounts = excluded.accounts, caps = excluded.caps, counts_tokens = excluded.counts_tokens;
  PERFORM headgate_till_weigh(whose, of_windows, of_accounts, of_tokens, money, tokens, deadline + 7200);
END $$;

CREATE FUNCTION headgate_till_extend(
  whose text, called text, lease double precision, wanted numeric, at double precision,
  OUT what text, OUT granted numeric, OUT of_epoch bigint, OUT spent numeric[], OUT held numeric[]
) LANGUAGE plpgsql AS $$
DECLARE
  known headgate_till_reservations;
BEGIN
  what := 'unknown';
  SELECT o.epoch INTO of_epoch FROM headgate_till_owners o WHERE o.owner = whose FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  what := 'gone';
  at := headgate_till_time(at);
  SELECT * INTO known FROM headgate_till_reservations r WHERE r.owner = whose AND r.id = called AND r.is_open;
  IF NOT FOUND OR EXISTS (SELECT FROM unnest(known.windows) AS s(window_id) WHERE NOT EXISTS (
    SELECT FROM headgate_till_windows w WHERE w.owner = whose AND w.window_id = s.window_id AND w.until > at)) THEN RETURN; END IF;
  SELECT b.spent, b.held INTO spent, held FROM headgate_till_balances(whose, known.windows, known.accounts) b;
  granted := coalesce(wanted, known.amount);
  IF granted > known.amount
    AND headgate_till_room(known.caps, known.counts_tokens, spent, held, granted - known.amount, 0) IS NULL THEN
    what := 'refused';
    RETURN;
  END IF;
  what := 'granted';
  UPDATE headgate_till_reservations r SET amount = granted, due = at + lease WHERE r.owner = whose AND r.id = called;
  PERFORM headgate_till_weigh(
    whose, known.windows, known.accounts, known.counts_tokens, granted - known.amount, 0, at + lease + 7200);
  held := headgate_till_added(held, known.counts_tokens, granted - known.amount, 0);
END $$;

CREATE FUNCTION headgate_till_end(
  whose text, called text, of_number bigint, of_windows text[], of_accounts text[], amounts numeric[], at double precision
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  known headgate_till_reservations;
  before text[] := '{}';
  counting text[];
BEGIN
  PERFORM FROM headgate_till_owners o WHERE o.owner = whose FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  at := headgate_till_time(at);
  DELETE FROM headgate_till_reservations r WHERE r.owner = whose AND r.id = called RETURNING * INTO known;
  IF known.is_open THEN
    PERFORM headgate_till_weigh(
      whose, known.windows, known.accounts, known.counts_tokens, -known.amount, -known.tokens, '-infinity');
  ELSIF known.due > at THEN
    before := known.counted;
  END IF;
  SELECT coalesce(array_agg(w.window_id), '{}') INTO counting FROM headgate_till_windows w
    WHERE w.owner = whose AND w.window_id = ANY(of_windows) AND w.until > at AND w.number < of_number
    AND w.window_id <> ALL(before);
  INSERT INTO headgate_till_counters AS c (owner, window_id, account, spent, held)
    SELECT whose, s.window_id, s.account, s.amount, 0
    FROM unnest(of_windows, of_accounts, amounts) AS s(window_id, account, amount) WHERE s.window_id = ANY(counting)
  ON CONFLICT (owner, window_id, account) DO UPDATE SET spent = c.spent + excluded.spent;
  INSERT INTO headgate_till_reservations (owner, id, is_open, due, counted) VALUES (whose, called, false, at + 3600, before || counting);
  -- More are forgotten than are remembered, so that it never becomes much.
  DELETE FROM headgate_till_reservations r WHERE r.owner = whose AND r.id IN (
    SELECT f.id FROM headgate_till_reservations f WHERE f.owner = whose AND NOT f.is_open AND f.due <= at ORDER BY f.due LIMIT 2);
END $$;

-- `ends`: of the windows, NULL where one never ends. False where the epoch is not one that can be filled (so) any more.
CREATE FUNCTION headgate_till_fill(
  whose text, to_epoch bigint, anew boolean, of_number bigint, of_windows text[], ends double precision[],
  spent_windows text[], spent_accounts text[], amounts numeric[], at double precision
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  added text[];
BEGIN
  at := headgate_till_time(at);
  IF anew THEN
    INSERT INTO headgate_till_owners AS o (owner, epoch) VALUES (whose, to_epoch)
      ON CONFLICT (owner) DO UPDATE SET epoch = excluded.epoch WHERE o.epoch < excluded.epoch;
    IF NOT FOUND THEN RETURN false; END IF;
    DELETE FROM headgate_till_windows w WHERE w.owner = whose;
    DELETE FROM headgate_till_counters c WHERE c.owner = whose;
    DELETE FROM headgate_till_reservations r WHERE r.owner = whose;
  ELSE
    PERFORM FROM headgate_till_owners o WHERE o.owner = whose AND o.epoch = to_epoch FOR UPDATE;
    IF NOT FOUND THEN RETURN false; END IF;
    WITH over AS (DELETE FROM headgate_till_windows w WHERE w.owner = whose AND w.until <= at RETURNING w.window_id)
      DELETE FROM headgate_till_counters c USING over WHERE c.owner = whose AND c.window_id = over.window_id;
  END IF;
  WITH new AS (
    INSERT INTO headgate_till_windows (owner, window_id, number, until)
      SELECT whose, s.window_id, of_number, greatest(coalesce(s.ends, 'infinity'), at) + 7200
      FROM unnest(of_windows, ends) AS s(window_id, ends)
    ON CONFLICT DO NOTHING RETURNING window_id
  ) SELECT coalesce(array_agg(window_id), '{}') INTO added FROM new;
  INSERT INTO headgate_till_counters (owner, window_id, account, spent, held)
    SELECT whose, s.window_id, s.account, s.amount, 0
    FROM unnest(spent_windows, spent_accounts, amounts) AS s(window_id, account, amount) WHERE s.window_id = ANY(added);
  RETURN true;
END $$;
