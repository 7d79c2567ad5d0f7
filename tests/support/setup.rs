//! A folder with a manifest and its files, and the command line to serve it.

use super::{Host, replace};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with a manifest and its files, and the command line to serve it.
pub struct Setup {
    pub dir: Dir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    ulimit: Option<String>,
    http: &'static str,
}

/// The folder of a setup.
pub enum Dir {
    /// A temporary folder, removed with the setup.
    Own(tempfile::TempDir),
    Other(PathBuf),
}

impl Dir {
    pub fn path(&self) -> &Path {
        match self {
            Dir::Own(dir) => dir.path(),
            Dir::Other(path) => path,
        }
    }
}

impl Setup {
    /// Uses the folder of another setup, as that setup left it.
    pub fn at(path: &Path) -> Self {
        Setup::in_folder(Dir::Other(path.to_owned()))
    }

    /// Creates a setup; the manifest may omit `[server]`. Add files with `file` and `text`.
    pub fn new(manifest: &str) -> Self {
        let dir = Dir::Own(tempfile::tempdir().expect("a temporary folder"));
        Setup::in_folder(dir).text("hostler.toml", manifest)
    }

    fn in_folder(dir: Dir) -> Self {
        Setup { dir, args: Vec::new(), env: Vec::new(), ulimit: None, http: "127.0.0.1:0" }
    }

    /// Sets the address of the public listener, instead of a free port on the loopback interface.
    pub fn listen(mut self, http: &'static str) -> Self {
        self.http = http;
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Copies a file into the folder.
    pub fn file(self, name: &str, from: impl AsRef<Path>) -> Self {
        replace(&self.path(name), &std::fs::read(from).expect("the file to copy"));
        self
    }

    pub fn text(self, name: &str, content: &str) -> Self {
        replace(&self.path(name), content.as_bytes());
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds a gRPC listener on a free port.
    pub fn grpc(self) -> Self {
        self.arg("--grpc").arg("127.0.0.1:0")
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Limits the number of files and connections that the process may have open.
    pub fn open_files_max(self, limit: u32) -> Self {
        self.ulimit(&format!("-n {limit}"))
    }

    /// Starts the process after `ulimit` with these arguments.
    pub fn ulimit(mut self, args: &str) -> Self {
        self.ulimit = Some(args.into());
        self
    }

    /// Runs a command of the binary to its end: `check`, `diff`, …. Returns exit code, stdout and
    /// stderr.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_hostler");
        let mut command = match &self.ulimit {
            None => Command::new(binary),
            Some(args) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit {args} && exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        command.args(args).current_dir(self.dir.path()).envs(self.env.iter().cloned());
        command
    }

    /// Starts the host; panics with its log if it does not start.
    pub fn start(self) -> Host {
        self.try_start().unwrap_or_else(|log| panic!("the host did not start:\n{log}"))
    }

    /// Starts the host; fails with the output if the process ends before it serves.
    pub fn try_start(self) -> Result<Host, String> {
        let mut command = self.command(&["serve", "hostler.toml", "--http", self.http]);
        command.args(["--admin", "127.0.0.1:0"]).args(&self.args);
        Host::spawn(command, self)
    }
}
