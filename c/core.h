/*
** What a C door hands to the Rust core: the few SQLite functions that turnstile calls.
**
** The core never names a sqlite3_* symbol. Where the functions come from is the only difference
** between the doors: extension.c takes them from the routines that the loading SQLite passes in,
** linked.c from the linker. src/sqlite/mod.rs has the same structure in Rust.
*/
#ifndef TURNSTILE_CORE_H
#define TURNSTILE_CORE_H

typedef struct turnstile_sqlite turnstile_sqlite;
struct turnstile_sqlite {
  sqlite3_vfs *(*xVfsFind)(const char*);
  int (*xVfsRegister)(sqlite3_vfs*, int);
  void (*xLog)(int, const char*, ...);
  const char *(*xUriParameter)(const char*, const char*);
  const char *(*xUriKey)(const char*, int);          /* NULL before SQLite 3.31 */
  char *(*xMprintf)(const char*, ...);
  void (*xFree)(void*);
  int (*xBusyHandler)(sqlite3*, int(*)(void*,int), void*);
  int (*xTxnState)(sqlite3*, const char*);           /* NULL before SQLite 3.34 */
  const char *(*xDbName)(sqlite3*, int);             /* NULL before SQLite 3.39 */
  const char *(*xDbFilename)(sqlite3*, const char*);
  int (*xIsInterrupted)(sqlite3*);                   /* NULL before SQLite 3.41 */
  int (*xOpen)(const char*, sqlite3**, int, const char*);
  int (*xClose)(sqlite3*);
  int (*xExec)(sqlite3*, const char*, int(*)(void*,int,char**,char**), void*, char**);
};

/*
** Registers the VFS in the SQLite behind pSqlite. zOptions is as in turnstile_register() or NULL.
** On an error its text is left in zErr (nErr bytes, terminated). bGuest: we are a library of our
** own in somebody's process, and not part of the program.
*/
int turnstile_core_register(
  const turnstile_sqlite *pSqlite, const char *zOptions, int bGuest, char *zErr, int nErr
);

/* turnstile_busy_handler() for the SQLite behind pSqlite. */
int turnstile_core_busy_handler(const turnstile_sqlite *pSqlite, sqlite3 *db, int ms);

#endif
