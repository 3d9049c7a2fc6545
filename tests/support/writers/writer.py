import os, sqlite3, sys, time

def say(what):
    os.write(1, f'\n>{time.clock_gettime_ns(time.CLOCK_MONOTONIC)} {what}\n'.encode())

so, path, who = sys.argv[1:]
db = sqlite3.connect(':memory:')
db.enable_load_extension(True)
db.load_extension(so)
db = sqlite3.connect(f'file:{path}?vfs=turnstile', uri=True, timeout=20, isolation_level=None)
db.execute('PRAGMA synchronous=OFF')
say('ready')
for command in sys.stdin:
    verb = command.split()[0]
    if verb != 'commit':
        db.execute('BEGIN IMMEDIATE')
        db.execute('INSERT INTO t VALUES(?, 0, 0)', (int(who),))
    if verb != 'hold':
        db.execute('COMMIT')
    say('fine' if verb == 'hold' else 'done')
