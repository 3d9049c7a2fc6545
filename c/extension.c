/*
** The first door: a loadable extension, libturnstile.so.
**
**     .load ./libturnstile                          -- the sqlite3 shell
**     conn.load_extension("./libturnstile")         -- Python
**     sqlite3_load_extension(db, "./libturnstile", 0, &zErr);
**
** It is in C, with SQLite's own sqlite3ext.h, because the structure of routines grows with every
** SQLite and the extension has to load into the SQLite that users have. Nothing newer than 3.26 is
** called without asking the version first.
*/
#include <sqlite3ext.h>
#include "core.h"

/*
** sqlite3_turnstile_init: the name that SQLite derives from "libturnstile.so". The exported symbol
** is one jump in src/lib.rs (rustc exports only Rust's own symbols from a cdylib) and ends here.
**
** The parameter is called sqlite3_api because the macros of sqlite3ext.h expand to members of a
** variable of that name. A parameter, and not the usual global of SQLITE_EXTENSION_INIT1: two
** SQLite libraries in one process may load this same file, each with routines of its own.
**
** SQLITE_OK_LOAD_PERMANENTLY, since the VFS outlives the connection that loaded it.
*/
int turnstile_extension_init(
  sqlite3 *db, char **pzErrMsg, const sqlite3_api_routines *sqlite3_api
){
  char zErr[512];
  int rc;
  turnstile_sqlite sqlite = {
    .xVfsFind = sqlite3_vfs_find,
    .xVfsRegister = sqlite3_vfs_register,
    .xLog = sqlite3_log,
    .xUriParameter = sqlite3_uri_parameter,
    .xUriKey = 0,
    .xMprintf = sqlite3_mprintf,
    .xFree = sqlite3_free,
    .xBusyHandler = sqlite3_busy_handler,
    .xDbFilename = sqlite3_db_filename,
    .xOpen = sqlite3_open_v2,
    .xClose = sqlite3_close,
    .xExec = sqlite3_exec,
  };
  (void)db;
#if SQLITE_VERSION_NUMBER>=3031000
  if( sqlite3_libversion_number()>=3031000 ) sqlite.xUriKey = sqlite3_uri_key;
#endif
#if SQLITE_VERSION_NUMBER>=3034000
  if( sqlite3_libversion_number()>=3034000 ) sqlite.xTxnState = sqlite3_txn_state;
#endif
#if SQLITE_VERSION_NUMBER>=3039000
  if( sqlite3_libversion_number()>=3039000 ) sqlite.xDbName = sqlite3_db_name;
#endif
#if SQLITE_VERSION_NUMBER>=3041000
  if( sqlite3_libversion_number()>=3041000 ) sqlite.xIsInterrupted = sqlite3_is_interrupted;
#endif
  rc = turnstile_core_register(&sqlite, 0, 1, zErr, sizeof(zErr));
  if( rc==SQLITE_OK ) return SQLITE_OK_LOAD_PERMANENTLY;
  if( pzErrMsg ) *pzErrMsg = sqlite3_mprintf("%s", zErr);
  return rc;
}
