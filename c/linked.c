/*
** The second and third door: SQLite and turnstile are linked into one program.
*/
#include <sqlite3.h>
#include "core.h"
#include "turnstile.h"

/* Also called from Rust (src/sqlite/linked.rs). */
const turnstile_sqlite *turnstile_linked_sqlite(void){
  static const turnstile_sqlite sqlite = {
    .xVfsFind = sqlite3_vfs_find,
    .xVfsRegister = sqlite3_vfs_register,
    .xLog = sqlite3_log,
    .xUriParameter = sqlite3_uri_parameter,
#if SQLITE_VERSION_NUMBER>=3031000
    .xUriKey = sqlite3_uri_key,
#endif
    .xMprintf = sqlite3_mprintf,
    .xFree = sqlite3_free,
    .xBusyHandler = sqlite3_busy_handler,
#if SQLITE_VERSION_NUMBER>=3034000
    .xTxnState = sqlite3_txn_state,
#endif
#if SQLITE_VERSION_NUMBER>=3039000
    .xDbName = sqlite3_db_name,
#endif
    .xDbFilename = sqlite3_db_filename,
    .xOpen = sqlite3_open_v2,
    .xClose = sqlite3_close,
    .xExec = sqlite3_exec,
#if SQLITE_VERSION_NUMBER>=3041000
    .xIsInterrupted = sqlite3_is_interrupted,
#endif
  };
  return &sqlite;
}

int turnstile_register(const char *zOptions){
  char zErr[512];
  return turnstile_core_register(turnstile_linked_sqlite(), zOptions, 0, zErr, sizeof(zErr));
}

int turnstile_busy_handler(sqlite3 *db, int ms){
  return turnstile_core_busy_handler(turnstile_linked_sqlite(), db, ms);
}
