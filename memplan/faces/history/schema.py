"""The tables of the file of measured runs, version by version."""

CHANGES = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, at TEXT NOT NULL,
        card TEXT NOT NULL, driver TEXT NOT NULL, torch TEXT NOT NULL, diffusers TEXT NOT NULL, memplan TEXT NOT NULL,
        model TEXT NOT NULL, class_name TEXT NOT NULL, content TEXT NOT NULL,
        digest TEXT NOT NULL, call TEXT NOT NULL, plan TEXT NOT NULL, device TEXT NOT NULL,
        beside INTEGER NOT NULL, clean INTEGER NOT NULL, why_none TEXT NOT NULL
    );
    CREATE TABLE phases (
        run INTEGER NOT NULL REFERENCES runs, number INTEGER NOT NULL, phase TEXT NOT NULL, component TEXT NOT NULL,
        predicted_allocated INTEGER, predicted_reserved INTEGER, predicted_seconds REAL, predicted_ram INTEGER,
        allocated INTEGER, reserved INTEGER, seconds REAL, ram INTEGER,
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID;
    """,
)
"""What makes a file of version n + 1 of one of version n; a file's version is its PRAGMA user_version."""
VERSION = len(CHANGES)
