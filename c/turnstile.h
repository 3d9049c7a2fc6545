/*
** turnstile: a SQLite VFS for one database file that very many processes share.
**
** For C and C++ programs that link libturnstile.a beside SQLite:
**
**     cc app.c libturnstile.a -lsqlite3 -lpthread -ldl -lm
**
** A program that loads libturnstile.so at run time needs no header.
*/
#ifndef TURNSTILE_H
#define TURNSTILE_H

#ifdef __cplusplus
extern "C" {
#endif

/*
** Registers the VFS "turnstile" in this process. Call it once, before the first
** sqlite3_open_v2(..., "turnstile") or "file:...?vfs=turnstile"; a further call does no harm.
**
** zOptions is NULL, or options as in the query of a URI, for example
**
**     "fs=network&retry_ms=60000&default=on"
**
** They have the URI's names and values (README, "Options") and are overridden by the environment
** and by the URI. "default=on" makes the VFS the process's default, so that programs which name no
** VFS use it too.
**
** Returns SQLITE_OK or an SQLite error code; the reason of an error goes to sqlite3_log().
*/
int turnstile_register(const char *zOptions);

/*
** Installs a busy handler on db that waits ms milliseconds, to the millisecond: in turn where there
** is a queue, at random elsewhere. It replaces sqlite3_busy_timeout(), which works as well (the VFS
** waits in turn for it, too); this one does not depend on how SQLite's own handler counts.
**
** ms<=0 removes the handler: who cannot get in is told SQLITE_BUSY at once.
**
** Returns what sqlite3_busy_handler() returns.
*/
struct sqlite3;
int turnstile_busy_handler(struct sqlite3 *db, int ms);

#ifdef __cplusplus
}
#endif

#endif
