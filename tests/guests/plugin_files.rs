//! Tests that `check` and `serve` refuse plugin files that cannot be served, with a reason that
//! says what was expected and what was found. Compiled components are cached, and no damage on disk
//! can break the host.

use crate::support::{Host, Setup, churn, model, plugin, replace, root};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// Compiles one of the faulty components in `tests/plugins/hostile/wat`.
fn wat(name: &str) -> Vec<u8> {
    wat::parse_file(root().join(format!("tests/plugins/hostile/wat/{name}.wat"))).expect("it is WAT")
}

fn wasm(name: &str) -> Vec<u8> {
    std::fs::read(plugin(name)).expect("a plugin")
}

/// Returns a setup with one plugin, `p.wasm`, in one role.
fn setup(role: &str, server: &str, wasm: &[u8]) -> Setup {
    let model = match role {
        "model" => "plugin = \"p\"",
        _ => "path = \"m.onnx\"\ntransformer = \"p\"",
    };
    let manifest = format!(
        "[server]\n{server}\n[plugins.p]\npath = \"p.wasm\"\ntimeout_ms = 500\n[models.m]\n{model}\n\
         [policy]\ndefault = \"cpu\"\n"
    );
    let setup = Setup::new(&manifest).file("m.onnx", model_file());
    replace(&setup.path("p.wasm"), wasm);
    setup
}

fn model_file() -> PathBuf {
    model("identity")
}

#[test]
fn what_cannot_be_served_is_refused_with_a_reason() {
    let half = |name: &str| wasm(name)[..wasm(name).len() / 2].to_vec();
    let cases: Vec<(&str, &str, Vec<u8>, &[&str])> = vec![
        ("no role", "model", wat("empty"), &["needs the role model", "exports nothing"]),
        (
            "a model as transformer",
            "transformer",
            wat("smallest"),
            &["needs the role transformer (export hostler:plugin/transformer@0.1.0)", "its role is model"],
        ),
        (
            "a transformer as model",
            "model",
            wasm("churn"),
            &["needs the role model (export hostler:plugin/model@0.1.0)", "its role is transformer"],
        ),
        (
            "another version",
            "transformer",
            wat("wrong-version"),
            &["built against hostler:plugin/transformer@0.9.0", "this host has 0.1.0"],
        ),
        (
            "a missing import",
            "model",
            wat("missing-import"),
            &["imports what this host does not provide: other:pkg/thing@1.0.0"],
        ),
        ("other functions", "model", wat("wrong-types"), &["metadata", "expected `record` found `u32`"]),
        ("a core module", "model", wat("core-module"), &["a core WebAssembly module, not a component"]),
        ("an empty file", "model", Vec::new(), &["the file is empty"]),
        ("a text", "model", b"plugin = true\n".to_vec(), &["the file is not WebAssembly"]),
        ("half a file", "model", half("hostile"), &["not a component that this host can run"]),
        (
            "a header alone",
            "model",
            b"\0asm\x0d\0\x01\0\0".to_vec(),
            &["not a component that this host can run"],
        ),
        ("a start that traps", "model", wat("start-trap"), &["metadata", "panicked or aborted"]),
        ("a start without end", "model", wat("start-spin"), &["was stopped after", "its timeout_ms is 500"]),
        ("metadata that traps", "model", wat("metadata-trap"), &["metadata", "panicked or aborted"]),
        ("metadata that is no text", "model", wat("metadata-odd"), &["metadata", "invalid utf-8"]),
        (
            "10 GiB of memory",
            "model",
            wat("memory-10gib"),
            &["10737418240", "exceeds the limit of 0x40000000"],
        ),
        ("4 GiB of memory", "model", wat("memory-4gib"), &["4294967296", "exceeds the limit of 0x40000000"]),
    ];
    for (name, role, wasm, parts) in cases {
        let setup = setup(role, "", &wasm);
        for command in
            [&["check"][..], &["serve", "hostler.toml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]]
        {
            let (code, _, error) = setup.run(command);
            assert_eq!(code, 1, "{name}: {command:?}: {error}");
            for part in [&["plugin \"p\""][..], parts].concat() {
                assert!(error.contains(part), "{name}: {command:?} lacks {part:?}:\n{error}");
            }
        }
        let (code, out, error) = setup.run(&["check", "p.wasm"]);
        // A plugin whose role does not fit its manifest is valid by itself.
        let expected = i32::from(!parts.iter().any(|part| part.starts_with("its role is")));
        assert_eq!(code, expected, "{name}: check p.wasm: {out}{error}");
    }
}

#[test]
fn the_smallest_plugin_is_served() {
    let host = setup("model", "", &wat("smallest")).start();
    let answer = host.predict("m", json!([1.5, 2.5]));
    assert_eq!(answer.result(), json!({"x": [1.5, 2.5]}));
}

/// The folder within `cache` that belongs to the cache.
const ENTRIES: &str = "cache/hostler-compiled-2";

/// Lists the compiled components in `cache`.
fn entries(setup: &Setup) -> Vec<PathBuf> {
    let files = std::fs::read_dir(setup.path(ENTRIES)).expect("the cache's folder");
    files.map(|file| file.expect("a file").path()).collect()
}

fn works(host: &Host) {
    let answer = host.predict("m", json!([1.5, 2.5]));
    assert_eq!(answer.result(), json!({"x": [1.5, 2.5]}));
}

/// Returns the log up to the line `policy applied`.
fn log_of_start(host: &Host) -> String {
    host.wait_for_log(&["policy applied"]);
    host.log()
}

/// Starts a host, sends one request, and returns whether the host reported a damaged cache entry.
fn complains(setup: &Setup) -> bool {
    let host = Setup::at(setup.dir.path()).start();
    works(&host);
    log_of_start(&host).contains("compiled plugin is damaged")
}

#[test]
fn a_compiled_plugin_is_kept_and_a_damaged_one_is_compiled_again() {
    let setup = setup("model", "cache_dir = \"cache\"", &wat("smallest"));
    assert!(!complains(&setup), "the first start");
    let [entry] = &entries(&setup)[..] else { panic!("{:?}", entries(&setup)) };
    let compiled = std::fs::read(entry).expect("the entry");
    let mode = std::fs::metadata(setup.path(ENTRIES)).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "native code is for its user alone");

    // Entries are written by rename, so a new entry would have another inode.
    let inode = || std::fs::metadata(entry).expect("the entry").ino();
    let before = inode();
    assert!(!complains(&setup), "the second start");
    assert_eq!(inode(), before, "the second start takes what is there");

    let mut flipped = compiled.clone();
    flipped[compiled.len() / 2] ^= 1;
    let damages = [
        ("a flipped bit", flipped),
        ("cut", compiled[..compiled.len() / 3].to_vec()),
        ("empty", Vec::new()),
        ("longer", [&compiled[..], b"!"].concat()),
    ];
    for (name, damage) in damages {
        replace(entry, &damage);
        assert!(complains(&setup), "{name}");
        assert_ne!(std::fs::read(entry).expect("the entry"), damage, "{name}: it is written anew");
        assert_eq!(entries(&setup).len(), 1, "{name}");
        assert!(!complains(&setup), "{name}: mended for the next start");
    }
}

#[test]
fn functions_that_are_taken_over_give_the_same_code_and_a_damaged_pack_gives_none() {
    let files = |setup: &Setup, suffix: &str| -> Vec<PathBuf> {
        let all = entries(setup).into_iter();
        all.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
    };
    // Without room for packs in the cache, every function is compiled.
    let alone = setup("model", "cache_dir = \"cache\"\ncache_mb = 100", &wasm("meter-js"));
    assert_eq!(alone.run(&["check", "hostler.toml"]).0, 0);
    let [plain] = &entries(&alone)[..] else { panic!("{:?}", entries(&alone)) };

    let packed = setup("model", "cache_dir = \"cache\"", &wasm("optional-js"));
    assert_eq!(packed.run(&["check", "hostler.toml"]).0, 0);
    let [pack] = &files(&packed, ".functions")[..] else { panic!("{:?}", entries(&packed)) };
    let before = std::fs::metadata(pack).unwrap().len();
    replace(&packed.path("p.wasm"), &wasm("meter-js"));
    assert_eq!(packed.run(&["check", "hostler.toml"]).0, 0);
    let name = plain.file_name().unwrap();
    let with_pack = packed.path(ENTRIES).join(name);
    assert!(std::fs::read(&with_pack).unwrap() == std::fs::read(plain).unwrap(), "other code");
    let new = std::fs::metadata(pack).unwrap().len() - before;
    assert!(new < before / 2, "most functions of the other plugin are taken over: {new} of {before} are new");

    let mut damaged = std::fs::read(pack).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    replace(pack, &damaged);
    std::fs::remove_file(&with_pack).unwrap();
    assert_eq!(packed.run(&["check", "hostler.toml"]).0, 0);
    assert!(std::fs::read(&with_pack).unwrap() == std::fs::read(plain).unwrap(), "other code");
    assert!(std::fs::read(pack).unwrap() != damaged, "it is written anew");
}

#[test]
fn an_entry_of_another_plugin_is_not_run() {
    let cached = |wasm: &[u8]| {
        let setup = setup("model", "cache_dir = \"cache\"", wasm);
        drop(Setup::at(setup.dir.path()).start());
        let entry = entries(&setup).remove(0);
        (setup, entry)
    };
    let (_other, stranger) = cached(&wasm("echo"));
    let (setup, entry) = cached(&wat("smallest"));
    std::fs::copy(stranger, entry).expect("a copy");
    assert!(complains(&setup));
}

#[test]
fn a_cache_that_cannot_be_written_costs_one_line_in_the_log() {
    for (name, dir) in [
        ("below a file", "p.wasm/cache"),
        ("a file", "p.wasm"),
        ("no disk", "/proc/self/cache"),
        ("a long name", &"x".repeat(300)),
    ] {
        let host = setup("model", &format!("cache_dir = \"{dir}\""), &wat("smallest")).start();
        works(&host);
        let complaints = log_of_start(&host).matches("compiled plugins cannot be kept").count();
        assert_eq!(complaints, 1, "{name}: {}", host.log());
        assert_eq!(std::fs::read(host.path("p.wasm")).expect("the plugin"), wat("smallest"), "{name}");
    }
}

#[test]
fn a_read_only_cache_is_used() {
    let setup = setup("model", "cache_dir = \"cache\"", &wat("smallest"));
    let cache = setup.path("cache");
    std::fs::create_dir(&cache).expect("the folder");
    // The tests may run as a user whom permissions do not stop (root); the host must serve in both
    // cases.
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o555)).expect("permissions");
    let host = setup.start();
    works(&host);
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn the_users_files_in_the_cache_folder_are_not_the_caches() {
    let setup = setup("model", "cache_dir = \"cache\"\ncache_mb = 0", &wat("smallest"));
    let theirs =
        ["notes.txt", "model.onnx", &format!("{}.cwasm", "0".repeat(64)), "hostler-compiled-2/notes.txt"];
    let folder = setup.path("cache");
    std::fs::create_dir(&folder).expect("the folder");
    // Whatever the umask, the folder of the cache is accessible to this user only.
    drop(Setup::at(setup.dir.path()).start());
    for name in theirs {
        replace(&folder.join(name), b"theirs");
    }
    drop(Setup::at(setup.dir.path()).start());
    for name in theirs {
        assert_eq!(std::fs::read(folder.join(name)).expect(name), b"theirs", "{name}");
    }
    assert_eq!(entries(&setup).len(), 1, "no entry is within the bound");
}

#[test]
fn a_cache_that_others_can_write_to_is_refused() {
    let cases =
        ["others can write to it (mode 0777); run chmod go-w on it", "it is a symbolic link; remove it"];
    for reason in cases {
        let setup = setup("model", "cache_dir = \"cache\"", &wat("smallest"));
        drop(Setup::at(setup.dir.path()).start());
        let folder = setup.path(ENTRIES);
        if reason.contains("link") {
            std::fs::rename(&folder, setup.path("elsewhere")).expect("a move");
            std::os::unix::fs::symlink(setup.path("elsewhere"), &folder).expect("a link");
        } else {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("permissions");
        }
        let before = std::fs::metadata(&entries(&setup)[0]).expect("the entry").modified().expect("a time");
        let host = Setup::at(setup.dir.path()).start();
        works(&host);
        let log = log_of_start(&host);
        assert!(log.contains("compiled plugins cannot be kept") && log.contains(reason), "{reason}: {log}");
        assert_eq!(host.metric("hostler_plugin_compiles_total{outcome=\"compiled\"}"), 1.0, "{reason}");
        let entry = std::fs::metadata(&entries(&setup)[0]).expect("the entry");
        assert_eq!(entry.modified().expect("a time"), before, "{reason}: not even used");
    }
}

#[test]
fn what_happens_to_an_entry_later_does_not_matter() {
    let cache = tempfile::tempdir().expect("a folder");
    let with_cache = |setup: Setup| setup.env("HOSTLER_CACHE", cache.path().to_str().expect("UTF-8"));
    // This component is large enough that its entry is memory-mapped.
    let setup = churn::setup("instances = \"reused\"").file("churn.wasm", plugin("churn-js"));
    let setup = with_cache(setup);
    drop(with_cache(Setup::at(setup.dir.path())).start());
    let folder = cache.path().join("components/hostler-compiled-2");
    let entry =
        std::fs::read_dir(folder).expect("the folder").next().expect("an entry").expect("a file").path();
    let cached = with_cache(Setup::at(setup.dir.path())).start();
    assert_eq!(cached.metric("hostler_plugin_compiles_total{outcome=\"cached\"}"), 1.0);
    std::fs::OpenOptions::new().write(true).truncate(true).open(entry).expect("the entry is cut");
    let answer = cached.predict("bankchurn", churn::low_risk());
    assert_eq!(answer.result()["risk"], "low");
}
