//! Certificates for a test, made by openssl: two authorities, and two certificates signed by the
//! first.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with `ca`, `other-ca`, `server` (for 127.0.0.1 and triton.test) and `client`, each as a
/// `.pem` and a `.key` file.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("config"), "[req]\ndistinguished_name=dn\n[dn]\n").expect("a file");
        let made = Certificates(folder);
        for ca in ["ca", "other-ca"] {
            made.openssl(ca, &["-addext", "basicConstraints=critical,CA:TRUE"]);
        }
        let names = "subjectAltName=DNS:triton.test,IP:127.0.0.1";
        for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
            let usage = format!("extendedKeyUsage={usage}");
            let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", names, "-addext", &usage];
            made.openssl(name, &[&signed[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat());
        }
        made
    }

    fn openssl(&self, name: &str, more: &[&str]) {
        let mut command = Command::new("openssl");
        command
            .current_dir(self.0.path())
            .args(["req", "-x509", "-config", "config", "-nodes", "-days", "2"]);
        command.args([
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-subj",
            &format!("/CN={name}"),
        ]);
        command.args(["-out", &format!("{name}.pem"), "-keyout", &format!("{name}.key")]).args(more);
        let output = command.output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Returns the arguments that make Triton use TLS. With `mutual` it requires a client
    /// certificate.
    pub fn triton(&self, mutual: bool) -> Vec<String> {
        let file = |key: &str, path: &Path| format!("--grpc-{key}={}", path.display());
        let mut args = vec!["--grpc-use-ssl=true".to_owned()];
        args.extend(mutual.then(|| "--grpc-use-ssl-mutual=true".to_owned()));
        args.push(file("server-cert", &self.path("server.pem")));
        args.push(file("server-key", &self.path("server.key")));
        args.push(file("root-cert", &self.path("ca.pem")));
        args
    }
}
