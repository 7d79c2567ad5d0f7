//! A copy of a manifest and of every file that it names. The drill serves the copy and damages it.
//!
//! Files keep their path relative to the manifest; files from outside its folder get a new place.
//! The drill writes only inside the copy, which is removed when its value is dropped.

use super::files::{read, replace, write};
use crate::error::{Error, Result};
use crate::policy::files::{Files, hex_digest};
use crate::policy::files_of;
use crate::policy::plan::{Plan, SourcePlan, parse_model_name};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use toml::{Table, Value};

/// The folder for files from outside the manifest's folder, with a subfolder for each of theirs.
const OUTSIDE: &str = "drill-outside";

pub struct Copy {
    folder: Folder,
    /// The current content of the manifest. Pins are filled in when it is written.
    pub manifest: Table,
    /// The manifest's file name.
    name: PathBuf,
    /// The folder of the original manifest.
    origin: PathBuf,
    /// Plugins and ONNX models with their files in the copy. Each file is listed once.
    pub plugins: Vec<(String, PathBuf)>,
    pub models: Vec<(String, PathBuf)>,
    /// Digests of the files that were swapped.
    swapped: BTreeMap<PathBuf, String>,
    /// Caches the digests of the copy's files.
    seen: Files,
}

impl Copy {
    pub fn make(plan: &Plan, files: &Files) -> Result<Self> {
        let folder = Folder::make()?;
        let origin = plan.path.parent().unwrap_or(Path::new("/")).to_owned();
        let text = read(&plan.path)?;
        let text = String::from_utf8(text)
            .map_err(|_| Error::invalid(format!("{} is not UTF-8", plan.path.display())))?;
        let mut manifest: Table = text.parse().map_err(|error: toml::de::Error| {
            Error::invalid(format!("{}: {}", plan.path.display(), error.message()))
        })?;
        let targets = targets(plan, &origin);
        for file in files_of(plan) {
            write(&folder.0.join(&targets[&file.path]), &files.read(file)?)?;
        }
        for (key, value) in &mut manifest {
            match (key.as_str(), value) {
                ("server", Value::Table(server)) => keep_server_settings(server, &origin),
                (_, value) => rename(value, &origin, &targets),
            }
        }
        let place = |path: &Path| folder.0.join(&targets[path]);
        let plugins = plan.plugins.iter().map(|(name, plugin)| (name.to_string(), place(&plugin.file.path)));
        let models = plan.models.iter().filter_map(|(name, model)| match &model.source {
            SourcePlan::Onnx { file, .. } => Some((name.to_string(), place(&file.path))),
            _ => None,
        });
        let (plugins, models) = (once_each(plugins), once_each(models));
        let name = PathBuf::from(plan.path.file_name().unwrap_or_default());
        let mut copy = Copy {
            folder,
            manifest,
            name,
            origin,
            plugins,
            models,
            swapped: BTreeMap::new(),
            seen: Files::default(),
        };
        copy.configure();
        copy.write_manifest()?;
        Ok(copy)
    }

    /// Sets the copy's own addresses and cache, and makes changes go live immediately.
    fn configure(&mut self) {
        let cache = self.folder.0.join("drill-cache").display().to_string();
        let server = self.table(&["server"]);
        for address in ["http", "admin"] {
            server.insert(address.into(), "127.0.0.1:0".into());
        }
        // The drill uses HTTP only.
        server.remove("grpc");
        // Its clients have no keys and no TLS.
        server.remove("access_rules");
        server.remove("tls");
        server.remove("trusted_proxies");
        // What a drill does is no act of an operator.
        server.remove("audit_log");
        // The files that a drill generates would evict the entries of the user's own cache.
        server.insert("cache_dir".into(), cache.into());
        server.insert("cache_mb".into(), 256.into());
        // Shows which requests the host took before it ended.
        server.insert("access_log".into(), true.into());
        // The jobs of the user's store are not run again here, nor their ends reported.
        let jobs = self.table(&["jobs"]);
        jobs.remove("store");
        jobs.remove("webhooks");
        self.manifest.remove("stores");
        let reload = self.table(&["reload"]);
        reload.insert("mode".into(), "watch".into());
        reload.insert("quiet_ms".into(), 20.into());
        reload.insert("poll_ms".into(), 500.into());
    }

    pub fn manifest_path(&self) -> PathBuf {
        self.folder.0.join(&self.name)
    }

    /// Returns a message of the host with the paths of the user's files instead of the copy's.
    pub fn with_original_paths(&self, message: &str) -> String {
        message.replace(&self.folder.0.display().to_string(), &self.origin.display().to_string())
    }

    /// Returns a table of the manifest; creates it if it does not exist.
    pub fn table(&mut self, path: &[&str]) -> &mut Table {
        path.iter().fold(&mut self.manifest, |table, key| {
            let value = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
            if !value.is_table() {
                *value = Value::Table(Table::new());
            }
            value.as_table_mut().expect("invariant: made a table")
        })
    }

    /// Sets the executor of a model.
    pub fn set_route(&mut self, model: &str, executor: &str) {
        let wanted = parse_model_name(model);
        let policy = self.table(&["policy"]);
        policy.retain(|key, _| key == "default" || parse_model_name(key) != wanted);
        policy.insert(model.into(), executor.into());
    }

    /// Writes the current manifest.
    pub fn write_manifest(&self) -> Result<()> {
        let mut manifest = self.manifest.clone();
        for (file, digest) in &self.swapped {
            self.pin(&mut manifest, file, digest);
        }
        replace(&self.manifest_path(), manifest.to_string().as_bytes())
    }

    /// Returns the digest of the policy that the files describe now.
    pub fn digest(&self) -> Result<String> {
        let plan = Plan::read(&self.manifest_path(), &self.seen).map_err(|unplanned| {
            Error::failed(self.with_original_paths(&unplanned.lines().join("\n")))
                .context("the copy is faulty")
                .laid_out()
        })?;
        Ok(plan.digest)
    }

    /// Replaces the content of a file, and updates the pins of that file.
    pub fn swap(&mut self, file: &Path, content: &[u8]) -> Result<()> {
        replace(file, content)?;
        self.swapped.insert(file.to_owned(), hex_digest(content));
        if self.pin(&mut self.manifest.clone(), file, "") { self.write_manifest() } else { Ok(()) }
    }

    /// Sets the pins of a file. Returns true if there are any.
    fn pin(&self, manifest: &mut Table, file: &Path, digest: &str) -> bool {
        let mut pinned = false;
        for kind in ["plugins", "models"] {
            let tables = manifest.get_mut(kind).and_then(Value::as_table_mut);
            for (_, value) in tables.into_iter().flatten() {
                let Value::Table(table) = value else { continue };
                let is_it = table
                    .get("path")
                    .and_then(Value::as_str)
                    .is_some_and(|path| normal(&self.folder.0.join(path)) == file);
                if is_it && table.contains_key("sha256") {
                    table.insert("sha256".into(), digest.into());
                    pinned = true;
                }
            }
        }
        pinned
    }
}

fn once_each(files: impl Iterator<Item = (String, PathBuf)>) -> Vec<(String, PathBuf)> {
    let mut known = BTreeSet::new();
    files.filter(|(_, file)| known.insert(file.clone())).collect()
}

/// Returns where each file of a plan goes, relative to the copy's folder.
fn targets(plan: &Plan, origin: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let mut outside = Vec::new();
    let mut place = |source: &Path| {
        let source = normal(source);
        if let Ok(below) = source.strip_prefix(origin) {
            return below.to_owned();
        }
        let folder = source.parent().unwrap_or(Path::new("/")).to_owned();
        let index = outside.iter().position(|known| *known == folder).unwrap_or_else(|| {
            outside.push(folder);
            outside.len() - 1
        });
        Path::new(OUTSIDE).join(index.to_string()).join(source.file_name().unwrap_or_default())
    };
    let mut targets: BTreeMap<PathBuf, PathBuf> =
        files_of(plan).map(|file| (file.path.clone(), place(&file.path))).collect();
    // External data keeps its path relative to its model.
    for model in plan.models.values() {
        let SourcePlan::Onnx { file, external } = &model.source else { continue };
        let (from, to) = (file.path.parent(), targets[&file.path].parent().map(Path::to_owned));
        let (Some(from), Some(to)) = (from, to) else { continue };
        for file in external {
            let beside = file.path.strip_prefix(from).unwrap_or(&file.path);
            targets.insert(file.path.clone(), to.join(beside));
        }
    }
    targets
}

/// Makes the paths of `[server]` absolute, and its addresses free ones: the original's may be in
/// use.
fn keep_server_settings(server: &mut Table, origin: &Path) {
    for (_, value) in server {
        let Value::String(text) = value else { continue };
        if text.parse::<SocketAddr>().is_ok() {
            *text = "127.0.0.1:0".into();
        } else if origin.join(&*text).exists() {
            *text = origin.join(&*text).display().to_string();
        }
    }
}

/// Replaces every string that is the path of a copied file with the path of its copy. Skips
/// `config`, which belongs to the plugin.
fn rename(value: &mut Value, origin: &Path, targets: &BTreeMap<PathBuf, PathBuf>) {
    match value {
        Value::String(text) => {
            if let Some(target) = targets.get(&origin.join(&*text)) {
                *text = target.display().to_string();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, origin, targets)),
        Value::Table(table) => {
            let values = table.iter_mut().filter(|(key, _)| key.as_str() != "config");
            values.for_each(|(_, value)| rename(value, origin, targets));
        }
        _ => {}
    }
}

/// Removes `.` and `..` without looking at the file system.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
        path
    })
}

/// A folder that only this user can access. Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("hostler-drill-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::path::absolute(std::env::temp_dir()).unwrap_or_else(|_| "/tmp".into()).join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            let path = path.display();
            Error::unavailable(format!("cannot create {path}: {error}; set TMPDIR to another folder"))
        })?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::other_model;
    use super::*;

    #[test]
    fn files_from_outside_come_in_and_external_data_stays_beside_its_model() {
        let dir = tempfile::tempdir().unwrap();
        let (origin, far) = (dir.path().join("origin"), dir.path().join("far"));
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        for name in ["external.onnx", "external.bin", "plus1.onnx"] {
            let content = fs::read(models.join(name)).unwrap();
            write(&far.join(name), &content).unwrap();
            write(&origin.join("deep").join(name), &content).unwrap();
        }
        let text = format!(
            "[server]\nhttp = \"0.0.0.0:80\"\n[reload]\nmode = \"manual\"\n\
             [models.a]\npath = \"../far/external.onnx\"\n[models.b]\npath = {:?}\nsha256 = \"{}\"\n\
             [models.c]\npath = \"deep/external.onnx\"\n",
            far.join("plus1.onnx"),
            hex_digest(&fs::read(far.join("plus1.onnx")).unwrap()),
        );
        let path = origin.join("my.toml");
        write(&path, text.as_bytes()).unwrap();
        let files = Files::default();
        let plan = Plan::read(&path, &files).map_err(|why| why.lines().join("\n")).unwrap();
        let mut copy = Copy::make(&plan, &files).unwrap();
        let folder = copy.folder.0.clone();
        let read =
            || Plan::read(&copy.manifest_path(), &Files::default()).map_err(|why| why.lines()).unwrap();
        let copied = read();
        assert_eq!(copied.description, plan.description, "the same files, executors and models");
        assert_eq!((copied.settings.http.port(), copied.reload.watch), (0, true));
        for file in files_of(&copied) {
            assert!(normal(&file.path).starts_with(&folder), "{file:?}");
        }
        let (_, pinned) = copy.models.iter().find(|(name, _)| name == "b:1").cloned().unwrap();
        assert_eq!(copy.models.len(), 3, "each in its place");
        let other = other_model(&fs::read(&pinned).unwrap());
        copy.swap(&pinned, &other).unwrap();
        let read = Plan::read(&copy.manifest_path(), &Files::default()).map_err(|why| why.lines()).unwrap();
        assert_ne!(read.digest, copied.digest, "the pin was rewritten with the file");
        drop(copy);
        assert!(!folder.exists());
    }
}
