//! The program as authors have it: installed from its wheel, beside ONNX Runtime.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Everything here waits for other programs, which may have to fetch packages.
const PATIENCE: Duration = Duration::from_secs(300);

/// Returns the folder of an environment with the program and ONNX Runtime, and nothing else.
pub fn environment() -> &'static Path {
    static ENVIRONMENT: OnceLock<PathBuf> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authors");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let wheel = xtask::dist::wheel(root, Path::new(env!("CARGO_BIN_EXE_hostler")), &folder);
        let wheel = wheel.unwrap_or_else(|error| panic!("{error}"));
        let environment = folder.join("environment");
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(environment.join("bin/python")).args(pip).arg(wheel));
        environment
    })
}

/// Runs a command that must succeed, and returns its output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = text(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A project in a folder of its own.
pub struct Project {
    pub folder: PathBuf,
    _kept: tempfile::TempDir,
}

impl Project {
    pub fn new(language: &str, role: &str) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let folder = kept.path().join(format!("my-{language}"));
        run(hostler(kept.path()).args(["new", language, role]).arg(&folder));
        Project { folder, _kept: kept }
    }

    pub fn hostler(&self) -> Command {
        hostler(&self.folder)
    }

    pub fn command(&self, program: &str) -> Command {
        let path = if program.contains('/') { self.folder.join(program) } else { program.into() };
        let mut command = Command::new(path);
        command.current_dir(&self.folder).env("PATH", path_with_program());
        command
    }

    /// Replaces a text in a file of the project.
    pub fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.join(file);
        let content = std::fs::read_to_string(&path).unwrap();
        assert!(content.contains(from), "{file} lacks {from}");
        std::fs::write(path, content.replace(from, to)).unwrap();
    }
}

/// Returns the installed program, in a folder and without this repository's variables.
fn hostler(folder: &Path) -> Command {
    let mut command = Command::new(environment().join("bin/hostler"));
    command.current_dir(folder).env("PATH", path_with_program());
    // The program must find the ONNX Runtime beside it.
    command.env_remove("ORT_DYLIB_PATH");
    // Cargo sets these for the tests of this repository.
    for name in ["CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

fn path_with_program() -> String {
    format!("{}:{}", environment().join("bin").display(), std::env::var("PATH").unwrap())
}

/// `hostler dev` of a project.
pub struct Dev {
    child: Child,
    address: String,
    lines: Receiver<String>,
}

impl Dev {
    pub fn start(project: &Project) -> Self {
        let mut command = project.hostler();
        command.args(["dev", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let ends: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for end in ends {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(end).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let mut dev = Dev { child, address: String::new(), lines };
        let line = dev.says("listening http=");
        let address = line.strip_prefix("listening http=").unwrap().split_whitespace().next();
        dev.address = address.unwrap().to_owned();
        dev
    }

    /// Returns the next line with this part. Panics with the lines before if there is none.
    pub fn says(&self, part: &str) -> String {
        let (until, mut before) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            match line {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => before.push(line),
                Err(error) => panic!("expected \"{part}\": {error}\n{}", before.join("\n")),
            }
        }
    }

    /// Sends the project's request until the answer has this part.
    pub fn answers(&self, project: &Project, part: &str) {
        let body = std::fs::read_to_string(project.folder.join("request.json")).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(&body);
            if answer.contains(part) {
                return;
            }
            assert!(answer.contains(" 200 "), "{answer}");
            assert!(Instant::now() < until, "expected {part}, got {answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&self, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
