import sqlite3, sys

extension, path, vfs, who = sys.argv[1:]
if vfs == 'turnstile':
    loader = sqlite3.connect(':memory:')
    loader.enable_load_extension(True)
    loader.load_extension(extension)
db = sqlite3.connect(f'file:{path}?vfs={vfs}', uri=True, timeout=60, isolation_level=None)
db.execute('PRAGMA journal_mode=wal').fetchall()
db.execute('PRAGMA synchronous=FULL')
(status,) = db.execute('SELECT status FROM job WHERE id=?', (who,)).fetchone()
assert status == 'waiting', status
for status in ('running', 'done'):
    db.execute('BEGIN IMMEDIATE')
    db.execute('UPDATE job SET status=? WHERE id=?', (status, who))
    db.execute('INSERT INTO log VALUES(?, ?)', (who, status))
    db.execute('COMMIT')
    print(status, flush=True)
db.close()
