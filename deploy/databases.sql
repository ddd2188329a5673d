-- Creates the databases that are missing: for runs, for the users of the tracking server, and for Optuna's studies.
SELECT format('CREATE DATABASE %I', name)
FROM unnest(ARRAY['mlflow', 'accounts', 'studies']) AS name
WHERE name NOT IN (SELECT datname FROM pg_database) \gexec
