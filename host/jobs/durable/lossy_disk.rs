//! A disk for tests that loses power: whatever was not synced is kept, lost or torn by chance. It
//! can also be full, and its files can be damaged.

use super::disk::Disk;
use super::fault::Fault;
use crate::lock::LockUnpoisoned;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Writes reach the disk in pieces of this size, each of them whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub struct LossyDisk(Arc<Mutex<Image>>);

#[derive(Debug)]
struct Image {
    files: BTreeMap<String, Contents>,
    /// Operations until the power is lost.
    left: usize,
    /// The bytes that fit on the disk.
    capacity: usize,
    done: usize,
    random: fastrand::Rng,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    synced: Vec<u8>,
    /// What was done since the last sync, in order.
    pending: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Image {
    fn used(&self) -> usize {
        self.files.values().map(|contents| contents.now().len()).sum()
    }

    /// Fails if the disk has no space for this much more.
    fn grow(&self, bytes: usize) -> io::Result<()> {
        if self.capacity < usize::MAX && self.used() + bytes > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Contents {
    fn now(&self) -> Vec<u8> {
        let mut data = self.synced.clone();
        self.pending.iter().for_each(|step| step.apply(&mut data));
        data
    }
}

impl Step {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Step::Write(at, new) => {
                if data.len() < at + new.len() {
                    data.resize(at + new.len(), 0);
                }
                data[*at..at + new.len()].copy_from_slice(new);
            }
            Step::Resize(length) => data.resize(*length, 0),
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("the power is lost")
}

impl LossyDisk {
    /// Creates an empty disk that loses power after so many operations.
    pub fn new(seed: u64, operations: usize) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        LossyDisk(Arc::new(Mutex::new(Image {
            files: BTreeMap::new(),
            left: operations,
            capacity: usize::MAX,
            done: 0,
            random,
        })))
    }

    /// Returns how many operations were done.
    pub fn operations(&self) -> usize {
        self.0.lock_unpoisoned().done
    }

    /// Returns the disk as it is when the power is back, and does not fail any more.
    pub fn after_power_cut(&self) -> Self {
        let mut image = self.0.lock_unpoisoned();
        let mut random = image.random.fork();
        let keep_all = random.u8(0..4) == 0;
        let files = image.files.iter().map(|(name, contents)| {
            let mut data = contents.synced.clone();
            for step in &contents.pending {
                match step {
                    _ if keep_all => step.apply(&mut data),
                    Step::Resize(_) if random.bool() => step.apply(&mut data),
                    Step::Resize(_) => {}
                    Step::Write(at, new) => {
                        for (number, sector) in new.chunks(SECTOR).enumerate() {
                            if random.bool() {
                                Step::Write(at + number * SECTOR, sector.to_vec()).apply(&mut data);
                            }
                        }
                    }
                }
            }
            (name.clone(), Contents { synced: data, pending: Vec::new() })
        });
        let files = files.collect();
        image.left = 0;
        LossyDisk(Arc::new(Mutex::new(Image {
            files,
            left: usize::MAX,
            capacity: usize::MAX,
            done: 0,
            random,
        })))
    }

    /// Returns a disk with the same files, of which one is changed.
    pub fn with_change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let changed = self.after_power_cut();
        {
            let (ours, mut theirs) = (self.0.lock_unpoisoned(), changed.0.lock_unpoisoned());
            let whole = |contents: &Contents| Contents { synced: contents.now(), pending: Vec::new() };
            theirs.files =
                ours.files.iter().map(|(name, contents)| (name.clone(), whole(contents))).collect();
            change(&mut theirs.files.get_mut(name).expect("invariant: the file exists").synced);
        }
        changed
    }

    /// Lets only so many more bytes fit.
    pub fn limit_to(&self, bytes: usize) {
        let mut image = self.0.lock_unpoisoned();
        image.capacity = image.used() + bytes;
    }

    /// Removes the limit.
    pub fn unlimit(&self) {
        self.0.lock_unpoisoned().capacity = usize::MAX;
    }

    fn with<T>(&self, run: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        let mut image = self.0.lock_unpoisoned();
        image.left = image.left.checked_sub(1).ok_or_else(lost)?;
        image.done += 1;
        run(&mut image)
    }

    fn read_only<T>(&self, run: impl FnOnce(&Image) -> io::Result<T>) -> io::Result<T> {
        let image = self.0.lock_unpoisoned();
        if image.left == 0 { Err(lost()) } else { run(&image) }
    }
}

/// A file of the disk, as a database sees it.
#[derive(Debug)]
struct File {
    disk: LossyDisk,
    name: String,
}

impl File {
    fn with(&self, run: impl FnOnce(&mut Contents)) -> io::Result<()> {
        self.disk.with(|image| {
            run(image.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?);
            Ok(())
        })
    }

    fn data(&self) -> io::Result<Vec<u8>> {
        self.disk.read_only(|image| Ok(image.files.get(&self.name).ok_or(io::ErrorKind::NotFound)?.now()))
    }
}

impl StorageBackend for File {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.data()?.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let (data, at) = (self.data()?, usize::try_from(offset).expect("invariant: small files"));
        let found = data.get(at..at + out.len()).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let length = usize::try_from(len).expect("invariant: small files");
        let now = self.data()?.len();
        self.disk.read_only(|image| image.grow(length.saturating_sub(now)))?;
        self.with(|contents| contents.pending.push(Step::Resize(length)))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.with(|contents| {
            contents.synced = contents.now();
            contents.pending.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).expect("invariant: small files");
        let now = self.data()?.len();
        self.disk.read_only(|image| image.grow((at + data.len()).saturating_sub(now)))?;
        self.with(|contents| contents.pending.push(Step::Write(at, data.to_vec())))
    }
}

impl Disk for LossyDisk {
    fn lock(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.read_only(|image| Ok(image.files.contains_key(name)))
    }

    fn open_database(&self, builder: &Builder, name: &str) -> Result<Database, DatabaseError> {
        builder.create_with_backend(File { disk: self.clone(), name: name.to_owned() })
    }

    fn create_database(&self, builder: &Builder, name: &str) -> Result<Database, DatabaseError> {
        self.with(|image| {
            image.files.insert(name.to_owned(), Contents::default());
            Ok(())
        })?;
        self.open_database(builder, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|image| {
            let contents = image.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            image.files.insert(to.to_owned(), contents);
            Ok(())
        })
    }

    fn write(&self, name: &str, data: &[u8]) -> io::Result<()> {
        self.read_only(|image| image.grow(data.len()))?;
        // The file is there before its contents are.
        self.with(|image| {
            let pending = vec![Step::Write(0, data.to_vec())];
            image.files.insert(name.to_owned(), Contents { synced: Vec::new(), pending });
            Ok(())
        })?;
        self.with(|image| {
            let contents = image.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            *contents = Contents { synced: contents.now(), pending: Vec::new() };
            Ok(())
        })
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.read_only(|image| Ok(image.files.get(name).ok_or(io::ErrorKind::NotFound)?.now()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|image| {
            image.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.read_only(|image| Ok(image.files.keys().cloned().collect()))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(Disk::read(self, name)?.len() as u64)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn set_aside(&self, names: &[String], _folder: &str) -> io::Result<()> {
        names.iter().try_for_each(|name| self.remove(name))
    }

    fn shown(&self) -> String {
        "a disk that loses power".into()
    }
}
