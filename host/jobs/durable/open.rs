//! Opens the database of a store: creates a new one, checks an existing one, and reads the index.

use super::cache::JobCache;
use super::disk::Disk;
use super::fault::{Attempted, Fault, catch_panics};
use super::payloads::{self, InProgress};
use super::tables::{CLOCK_KEY, FIRST_SCHEMA, SCHEMA, SCHEMA_KEY, Tables};
use crate::jobs::store::Index;
use crate::jobs::store_time::StoreTime;
use redb::{Builder, Database, ReadableDatabase};
use std::sync::Arc;

pub(super) const DATABASE: &str = "jobs.redb";
/// Written after the database was created: from then on, a missing database is a fault.
const MARKER: &str = "created";
const NEW: &str = "jobs.redb.new";

/// Memory for pages of the database. The default of the library is a gigabyte.
const CACHE_BYTES: usize = 32 << 20;

/// A database that is larger than this, and mostly free pages, is compacted when it is opened.
const COMPACT_FROM_BYTES: u64 = 64 << 20;

pub(super) struct Opened {
    pub database: Database,
    pub index: Index,
    pub now: StoreTime,
    /// Records that could not be read.
    pub damaged: usize,
}

pub(super) fn open(disk: &Arc<dyn Disk>, in_progress: &InProgress) -> Result<Opened, Fault> {
    disk.lock()?;
    catch_panics(|| format!("cannot open {}", shown(&**disk)), || open_locked(&**disk, in_progress))
}

fn shown(disk: &dyn Disk) -> String {
    format!("{DATABASE} in {}", disk.shown())
}

fn open_locked(disk: &dyn Disk, in_progress: &InProgress) -> Result<Opened, Fault> {
    let (is_there, was_created) = (exists(disk, DATABASE)?, exists(disk, MARKER)?);
    if !is_there {
        if was_created {
            return Err(Fault::damaged(format!("{} is missing", shown(disk))));
        }
        create(disk)?;
    }
    if !was_created {
        mark(disk)?;
    }
    let database = open_existing(disk)?;
    read(disk, in_progress, database)
}

fn exists(disk: &dyn Disk, name: &str) -> Result<bool, Fault> {
    disk.exists(name)
        .map_err(|error| Fault::io(&format!("cannot look for {name} in {}", disk.shown()), &error))
}

fn mark(disk: &dyn Disk) -> Result<(), Fault> {
    let text = b"The job store of a Hostler host. jobs.redb belongs to it.\n";
    disk.write(MARKER, text)
        .map_err(|error| Fault::io(&format!("cannot create {MARKER} in {}", disk.shown()), &error))
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    // Without it, a damaged file can be read as other data.
    builder.set_check_integrity_on_open(true);
    builder
}

/// Creates the database under another name, so that one that is not complete is never opened.
fn create(disk: &dyn Disk) -> Result<(), Fault> {
    let what = format!("cannot create {}", shown(disk));
    let _ = disk.remove(NEW);
    let database = disk.create_database(&builder(), NEW).attempted(&what)?;
    let transaction = database.begin_write().attempted(&what)?;
    let mut cache = JobCache::default();
    let mut tables = Tables::open(&transaction, &mut cache)?;
    tables.set_meta(SCHEMA_KEY, SCHEMA)?;
    tables.set_meta(CLOCK_KEY, 0)?;
    drop(tables);
    transaction.commit().attempted(&what)?;
    drop(database);
    disk.rename(NEW, DATABASE).map_err(|error| Fault::io(&what, &error))
}

fn open_existing(disk: &dyn Disk) -> Result<Database, Fault> {
    let what = format!("cannot open {}", shown(disk));
    let length = disk.length(DATABASE).map_err(|error| Fault::io(&what, &error))?;
    if length == 0 {
        return Err(Fault::damaged(format!("{} is empty", shown(disk))));
    }
    disk.open_database(&builder(), DATABASE).attempted(&what)
}

fn read(disk: &dyn Disk, in_progress: &InProgress, mut database: Database) -> Result<Opened, Fault> {
    let what = format!("cannot read {}", shown(disk));
    let snapshot = database.begin_read().attempted(&what)?;
    let meta = snapshot.open_table(super::tables::META).attempted(&what)?;
    let meta_value = |key| Ok::<_, Fault>(meta.get(key).attempted(&what)?.map(|value| value.value()));
    let schema = meta_value(SCHEMA_KEY)?;
    match schema {
        Some(SCHEMA | FIRST_SCHEMA) => {}
        Some(other) => {
            return Err(Fault::damaged(format!(
                "{} was written by another version of hostler (schema {other}; this version writes {SCHEMA})",
                shown(disk)
            )));
        }
        None => return Err(Fault::damaged(format!("{} has no schema version", shown(disk)))),
    }
    let now = StoreTime(meta_value(CLOCK_KEY)?.unwrap_or_default());
    drop(meta);
    drop(snapshot);
    let mut index = Index::default();
    let transaction = database.begin_write().attempted(&what)?;
    let mut cache = JobCache::default();
    let mut tables = Tables::open(&transaction, &mut cache)?;
    let damaged = tables.load(&mut index)?;
    let unused = unused_files(disk, in_progress, &tables)?;
    let is_current = schema == Some(SCHEMA);
    if !is_current {
        tables.set_meta(SCHEMA_KEY, SCHEMA)?;
    }
    drop(tables);
    match damaged == 0 && is_current {
        true => transaction.abort().attempted(&what)?,
        false => transaction.commit().attempted(&what)?,
    }
    for name in unused {
        let _ = disk.remove(&name);
    }
    let length = disk.length(DATABASE).unwrap_or_default();
    if length > COMPACT_FROM_BYTES && length / 4 > index.bytes() as u64 {
        database
            .compact()
            .map_err(|error| Fault::unavailable(format!("cannot compact {}: {error}", shown(disk))))?;
    }
    Ok(Opened { database, index, now, damaged })
}

/// Returns the files that no job refers to.
fn unused_files(
    disk: &dyn Disk,
    in_progress: &InProgress,
    tables: &Tables<'_>,
) -> Result<Vec<String>, Fault> {
    let names = disk.names().map_err(|error| Fault::io(&format!("cannot list {}", disk.shown()), &error))?;
    let steps = tables.step_files()?;
    let mut unused = Vec::new();
    for name in names {
        let Some((id, slot)) = payloads::owner_of(&name) else { continue };
        if !in_progress.contains(&name) && !steps.contains(&name) && !tables.refers_to(id, slot, &name)? {
            unused.push(name);
        }
    }
    Ok(unused)
}
