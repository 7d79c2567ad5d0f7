//! Tests `hostler check` on manifests: it reports what is wrong, where, and how to fix it, and all
//! faults in one run.

use crate::support::{Setup, model, plugin, replace};

const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn setup(manifest: &str) -> Setup {
    let setup = Setup::new(manifest).file("m.onnx", model("plus1")).file("n.onnx", model("plus2"));
    setup.file("echo.wasm", plugin("echo")).text("text.txt", "text")
}

/// Runs `hostler check` with `args`; returns the exit code and all output.
fn check(setup: &Setup, args: &[&str]) -> (i32, String) {
    let (code, out, err) = setup.run(&[&["check", "hostler.toml"], args].concat());
    (code, out + &err)
}

/// Checks that the manifest is refused with each of `parts`, with and without loading.
fn refused(manifest: &str, parts: &[&str]) {
    let setup = setup(manifest);
    for args in [&[][..], &["--quick"]] {
        let (code, said) = check(&setup, args);
        assert_eq!(code, 1, "{manifest}\n{said}");
        for part in parts {
            assert!(said.contains(part), "{manifest}\n{said}\nlacks {part}");
        }
    }
}

#[test]
fn a_plugin_that_does_not_wait_has_no_shared_instance() {
    // The roles of a plugin are known only once it is loaded.
    let setup = setup(&format!("{ECHO}instances = \"shared\"\n"));
    let (code, said) = check(&setup, &[]);
    let part = "plugin \"echo\": only instances of a streaming-model can be \"shared\"";
    assert!(code == 1 && said.contains(part), "{said}");
}

fn accepted(manifest: &str) {
    let (code, said) = check(&setup(manifest), &[]);
    assert_eq!(code, 0, "{manifest}\n{said}");
    assert!(said.contains("hostler.toml: ok ("), "{said}");
}

const MODEL: &str = "[models.m]\npath = \"m.onnx\"\n";
const ECHO: &str = "[models.e]\nplugin = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n";

#[test]
fn faults_of_form_name_line_column_and_mend() {
    for (manifest, parts) in [
        (
            "[executors.onnx]\nworkers = \"eight\"\n",
            &["hostler.toml:2:11", "\"eight\"", "workers = \"eight\"", "^^^^^^^"][..],
        ),
        ("[executors.onnx]\nworkers = -1\n", &["hostler.toml:2:11", "-1"]),
        ("[executors.onnx]\nworkers = 1.5\n", &["hostler.toml:2:11", "1.5"]),
        (
            "[executors.onnx]\nmax_workers = 8\n",
            &["hostler.toml:2:1", "unknown key \"max_workers\"", "did you mean \"workers\"?"],
        ),
        ("[executors.onnx]\nworkres = 8\n", &["hostler.toml:2:1", "did you mean \"workers\"?"]),
        (
            "[executors.onnx]\ncolour = 8\n",
            &["hostler.toml:2:1", "unknown key \"colour\"", "known here: kind, workers"],
        ),
        ("[modles.m]\npath = \"m.onnx\"\n", &["hostler.toml:1:2", "did you mean \"models\"?"]),
        ("[server]\nport = 80\n", &["hostler.toml:2:1", "unknown key \"port\""]),
        (
            "[models.m]\nfile = \"m.onnx\"\n",
            &["hostler.toml:2:1", "unknown key \"file\"", "did you mean \"path\"?"],
        ),
        (
            "[models.e]\nplugin = \"echo\"\n[plugins.echo]\nmemory = 3\n",
            &["hostler.toml:4:1", "did you mean \"memory_mb\"?"],
        ),
        ("[policy]\necho:v1 = \"gpu\"\n", &["hostler.toml:2:", "echo:v1", "write \"echo:v1\""]),
        ("[models.echo:v1]\nplugin = \"echo\"\n", &["hostler.toml:1:", "write \"echo:v1\""]),
        ("[plugins.echo]\nsha256 = \"x\"\n", &["hostler.toml:1:1", "the key \"path\" is missing"]),
        ("[models.m]\npath = m.onnx\n", &["hostler.toml:2:8"]),
        ("[models.m\npath = \"m.onnx\"\n", &["hostler.toml:1:10"]),
        (
            "[models.m]\npath = \"m.onnx\"\n[models.m]\npath = \"n.onnx\"\n",
            &["hostler.toml:3:9", "duplicate key"],
        ),
        ("[models.m]\npath = \"m.onnx\"\nchecks = \"c.json\"\n", &["hostler.toml:3:10"]),
    ] {
        refused(manifest, parts);
    }
}

#[test]
fn names_that_nothing_has_are_told_the_nearest() {
    for (more, parts) in [
        (
            "[policy]\nm = \"onxn\"\n",
            &[
                "hostler.toml:8:5",
                "model \"m:1\": no executor \"onxn\" (did you mean \"onnx\"?)",
                "executors: cpu, gpu, onnx",
            ][..],
        ),
        (
            "[policy]\ndefault = \"gpus\"\n",
            &["hostler.toml:8:11", "[policy] default: no executor \"gpus\"", "did you mean \"gpu\"?"],
        ),
        (
            "[policy]\nmm = \"cpu\"\n",
            &["hostler.toml:8:1", "[policy]: no model \"mm\" (did you mean \"m\"?)"],
        ),
        (
            "[policy]\n\"m:2\" = \"cpu\"\n",
            &["hostler.toml:8:1", "[policy]: no model \"m:2\" (did you mean \"m:1\"?)"],
        ),
        (
            "[models.f]\nplugin = \"ehco\"\n",
            &[
                "hostler.toml:8:10",
                "model \"f:1\": no plugin \"ehco\" (did you mean \"echo\"?)",
                "[plugins.ehco]",
            ],
        ),
        (
            "[models.f]\npath = \"m.onnx\"\ntransformer = \"ecko\"\n",
            &["hostler.toml:9:15", "no plugin \"ecko\" (did you mean \"echo\"?)"],
        ),
        (
            "[routing.mm]\nweights = { v1 = 1 }\n",
            &["hostler.toml:7:10", "[routing.mm]: no model \"mm\" (did you mean \"m\"?)"],
        ),
        (
            "[executors.fast]\nkind = \"thread_pool\"\n",
            &[
                "hostler.toml:8:8",
                "kind \"thread_pool\" is not known (did you mean \"thread-pool\"?)",
                "kinds: thread-pool, onnx",
            ],
        ),
        (
            "[executors.fast]\nworkers = 2\n",
            &["hostler.toml:7:12", "executor \"fast\" has no kind", "kind = \"thread-pool\"", "\"custom\""],
        ),
    ] {
        refused(&format!("{MODEL}{ECHO}{more}"), parts);
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (manifest, parts) in [
        (
            "[models.m]\n",
            &["hostler.toml:1:9", "model \"m:1\" has neither a path nor a plugin", "add path = "][..],
        ),
        (
            "[models.m]\npath = \"m.onnx\"\nplugin = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n",
            &["hostler.toml:3:10", "model \"m:1\" has both a path and a plugin"],
        ),
        (
            "[models.m]\npath = \"m.onnx\"\n[models.\"m:1\"]\npath = \"n.onnx\"\n",
            &["hostler.toml:3:9", "\"m:1\" is given twice: a name without a version is version 1"],
        ),
        (
            "[models.\"m:v 1\"]\npath = \"m.onnx\"\n",
            &["hostler.toml:1:9", "\"m:v 1\" is not a model's name", "name:version"],
        ),
        ("[models.\"m:\"]\npath = \"m.onnx\"\n", &["hostler.toml:1:9", "\"m:\" is not a model's name"]),
        ("[models.\"m:1:2\"]\npath = \"m.onnx\"\n", &["hostler.toml:1:9", "\"m:1:2\" is not a model's name"]),
        ("[models.\"\"]\npath = \"m.onnx\"\n", &["hostler.toml:1:9", "\"\" is not a model's name"]),
        ("[models.\"ü\"]\npath = \"m.onnx\"\n", &["hostler.toml:1:9", "\"ü\" is not a model's name"]),
        (
            "[models.m]\npath = \"none.onnx\"\n",
            &["hostler.toml:2:8", "model \"m:1\": cannot read ", "/none.onnx: No such file"],
        ),
        ("[models.m]\npath = \".\"\n", &["hostler.toml:2:8", "it is a folder"]),
        (
            "[models.m]\npath = \"m.onnx\"\ntimeout_ms = 0\n",
            &["hostler.toml:3:14", "timeout_ms must be at least 1"],
        ),
        (
            "[models.m]\npath = \"m.onnx\"\nchecks = [{ file = \"none.json\" }]\n",
            &["hostler.toml:3:20", "model \"m:1\": check: cannot read "],
        ),
        (
            "[models.e]\nplugin = \"echo\"\n[plugins.echo]\npath = \"none.wasm\"\n",
            &["hostler.toml:4:8", "plugin \"echo\": cannot read ", "/none.wasm: No such file"],
        ),
        (
            "[executors.onnx]\ndevice = \"tpu\"\n",
            &["hostler.toml:2:10", "device \"tpu\" is not known", "cpu, cuda, cuda:<index>"],
        ),
        ("[executors.onnx]\ndevice = \"cuda:x\"\n", &["hostler.toml:2:10", "device \"cuda:x\" is not known"]),
        (
            "[executors.cpu]\ndevice = \"cpu\"\n",
            &["hostler.toml:2:10", "executor \"cpu\" is a thread pool, which has no device", "of kind onnx"],
        ),
        (
            "[executors.onnx]\nworkers = 0\n",
            &["hostler.toml:2:11", "executor \"onnx\": workers must be at least 1"],
        ),
        (
            "[executors.onnx]\nsessions = 0\n",
            &["hostler.toml:2:12", "executor \"onnx\": sessions must be at least 1"],
        ),
        (
            "[executors.\"a b\"]\nkind = \"onnx\"\n",
            &["hostler.toml:1:12", "\"a b\" is not a name: [executors] cannot have it"],
        ),
        ("[server]\nmax_body_mb = 0\n", &["hostler.toml:2:1", "[server] max_body_mb must be at least 1"]),
        (
            "[server]\nhttp = \"localhost\"\n",
            &["hostler.toml:2:1", "[server] http = \"localhost\" is not an address", "localhost:8000"],
        ),
        (
            "[server]\nadmin = \"127.0.0.1\"\n",
            &["[server] admin = \"127.0.0.1\" is not an address", "a port"],
        ),
        (
            "[reload]\nmode = \"auto\"\n",
            &["hostler.toml:2:8", "[reload] mode = \"auto\" is not known", "\"watch\" or \"manual\""],
        ),
        ("", &["the manifest serves no model", "[models.simple]"]),
    ] {
        refused(manifest, parts);
    }
    for (more, parts) in [
        (
            "instances = \"pooled\"\n",
            &[
                "hostler.toml:5:13",
                "instances = \"pooled\" is not known",
                "\"fresh\", \"reused\" or \"shared\"",
            ][..],
        ),
        ("memory_mb = 0\n", &["hostler.toml:5:13", "plugin \"echo\": memory_mb must be at least 1"]),
        ("timeout_ms = 0\n", &["hostler.toml:5:14", "plugin \"echo\": timeout_ms must be at least 1"]),
        (
            "[plugins.echo.assets]\na = \"none\"\n",
            &["hostler.toml:6:5", "plugin \"echo\": asset \"a\": cannot read "],
        ),
        ("[plugins.echo.config]\na = 1\n", &["hostler.toml:6:5", "expected a string"]),
        (
            "[models.f]\nplugin = \"echo\"\nsha256 = \"x\"\n",
            &["hostler.toml:7:10", "model \"f:1\"", "sha256", "under [plugins.echo]"],
        ),
    ] {
        refused(&format!("{ECHO}{more}"), parts);
    }
}

#[test]
fn one_model_is_moved_by_one_line_only() {
    let manifest = format!("{MODEL}[policy]\nm = \"cpu\"\n\"m:1\" = \"gpu\"\n");
    refused(&manifest, &["hostler.toml:5:1", "[policy]: \"m:1\" is given twice"]);
    accepted(&format!("{MODEL}[policy]\nm = \"cpu\"\ndefault = \"gpu\"\n"));
}

#[test]
fn a_pinned_file_must_have_its_digest() {
    let (_, said) = check(&setup(&format!("{MODEL}sha256 = \"abc\"\n")), &[]);
    for part in [
        "hostler.toml:3:10",
        "model \"m:1\": sha256 is not a digest of 64 hexadecimal digits",
        "the file now has ",
    ] {
        assert!(said.contains(part), "{said}\nlacks {part}");
    }
    let has = said.split_once("the file now has ").unwrap().1.lines().next().unwrap().to_owned();
    for good in [has.clone(), has.to_uppercase(), format!("sha256:{has}")] {
        accepted(&format!("{MODEL}sha256 = \"{good}\"\n"));
    }
    let waits = format!("has sha256 {has}, the manifest expects {DIGEST}");
    refused(
        &format!("{MODEL}sha256 = \"{DIGEST}\"\n"),
        &["pinned files do not match their sha256 yet", "model \"m:1\": ", "/m.onnx", &waits],
    );
    refused(
        &format!("{ECHO}sha256 = \"{DIGEST}\"\n"),
        &["plugin \"echo\": ", "/echo.wasm", "the manifest expects 0000"],
    );
    refused(
        &format!("{ECHO}sha256 = \"{}\"\n", "g".repeat(64)),
        &["hostler.toml:5:10", "plugin \"echo\": sha256 is not a digest"],
    );
}

#[test]
fn all_faults_are_listed_at_once_each_with_its_place() {
    let manifest = "[executors.onnx]\nworkers = 0\n[models.a]\n[models.b]\npath = \"none.onnx\"\n[models.c]\nplugin = \"no\"\n\
        [policy]\nd = \"cpu\"\n[reload]\nmode = \"x\"\n[server]\nhttp = \"x\"\n";
    let parts = [
        "hostler.toml:2:11",
        "hostler.toml:3:9",
        "hostler.toml:5:8",
        "hostler.toml:7:10",
        "hostler.toml:9:1",
        "hostler.toml:11:8",
        "[server] http = \"x\"",
    ];
    refused(manifest, &parts);
    let (_, said) = check(&setup(manifest), &[]);
    assert_eq!(said.matches("error: ").count(), parts.len(), "{said}");
}

#[test]
fn a_quick_check_reads_and_a_whole_one_loads() {
    for (manifest, part) in [
        ("[models.m]\npath = \"text.txt\"\n".to_owned(), "model \"m:1\": ONNX Runtime cannot load it"),
        (
            "[models.e]\nplugin = \"echo\"\n[plugins.echo]\npath = \"text.txt\"\n".to_owned(),
            "plugin \"echo\": the file is not WebAssembly",
        ),
        (
            format!("{MODEL}transformer = \"echo\"\n[plugins.echo]\npath = \"echo.wasm\"\n"),
            "needs the role transformer",
        ),
        (
            format!("{ECHO}memory_mb = 4096\n"),
            "memory_mb is 4096, but the engine's slots have 1024 MB; raise plugin_memory_mb_max",
        ),
        (
            format!("[server]\nplugin_memory_mb_max = 64\n{ECHO}memory_mb = 65\n"),
            "plugin \"echo\": memory_mb is 65, but the engine's slots have 64 MB; raise plugin_memory_mb_max under [server]",
        ),
        (format!("{MODEL}checks = [{{ file = \"text.txt\" }}]\n"), "text.txt: it is not a list of cases"),
    ] {
        let setup = setup(&manifest);
        let (code, said) = check(&setup, &["--quick"]);
        assert_eq!(code, 0, "{manifest}\n{said}");
        let (code, said) = check(&setup, &[]);
        assert_eq!(code, 1, "{manifest}\n{said}");
        assert!(said.contains(part), "{said}\nlacks {part}");
    }
    accepted(&format!("[server]\nplugin_memory_mb_max = 65\n{ECHO}memory_mb = 65\n"));
}

#[test]
fn a_check_is_run_and_has_the_models_time() {
    let checks = |checks: &str| {
        let manifest = "[models.loop]\npath = \"loop.onnx\"\ntimeout_ms = 100\nchecks = [{ file = \"c.json\", tolerance = 0.5 }]\n";
        Setup::new(manifest).file("loop.onnx", model("loop")).text("c.json", checks)
    };
    for (samples, expected) in [
        (r#"{"data": {"n": [0]}, "expect": {"y": 64.3}}"#, Ok(())),
        (r#"[{"data": {"n": [0]}, "expect": {}}, {"data": {"n": [1]}, "expect": {"y": 53.7}}]"#, Ok(())),
        (r#"{"data": {"n": [0]}, "expect": {"y": 65}}"#, Err("c.json[0]: result.y: expected 65, got 64.0")),
        (
            r#"[{"data": {"n": ["x"]}, "expect": {}}]"#,
            Err("c.json[0] failed: input \"n\"[0]: expected a whole number"),
        ),
        (
            r#"[{"data": {"n": [0]}, "expect": {}}, {"data": {"n": [1000000000]}, "expect": {}}]"#,
            Err("c.json[1] failed: the deadline of the request has passed"),
        ),
        (r#"[{"data": {"n": [0]}}]"#, Err("c.json[0]: it expects nothing")),
    ] {
        let (code, said) = check(&checks(samples), &[]);
        assert_eq!(code, i32::from(expected.is_err()), "{samples}\n{said}");
        assert!(
            expected
                .err()
                .is_none_or(|part| said.contains("model \"loop:1\": check ") && said.contains(part)),
            "{said}"
        );
    }
}

#[test]
fn a_manifest_that_cannot_be_read_is_named() {
    let setup = setup(MODEL);
    let (code, _, err) = setup.run(&["check", "other.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("other.toml") && err.contains("cannot read the manifest: No such file"), "{err}");
    replace(&setup.path("hostler.toml"), b"\xff\xfe");
    let (code, said) = check(&setup, &[]);
    assert_eq!(code, 1);
    assert!(said.contains("hostler.toml") && said.contains("UTF-8"), "{said}");
}

#[test]
fn numbers_out_of_their_bounds_are_refused_with_the_bound() {
    for (table, said) in [
        ("[executors.cpu]\nworkers = 9223372036854775807", "executor \"cpu\": workers must be at most 1024"),
        ("[executors.cpu]\nworkers = 1000000000", "workers must be at most 1024"),
        ("[executors.cpu]\nqueue = 1000000000", "queue must be at most 1048576"),
        ("[executors.onnx]\nsessions = 1000000000", "sessions must be at most 256"),
        ("[executors.onnx]\nintra_threads = 1000000000", "intra_threads must be at most 256"),
        ("[plugins.echo]\npath = \"echo.wasm\"\nreplicas = 1000000000", "replicas must be at most 128"),
        ("[plugins.echo]\npath = \"echo.wasm\"\nmemory_mb = 1000000000", "memory_mb must be at most 4096"),
        ("[plugins.echo]\npath = \"echo.wasm\"\nhandles = 1000000000", "handles must be at most 1048576"),
        ("[plugins.echo]\npath = \"echo.wasm\"\ngrace_ms = 9000000000000000", "grace_ms must be at most"),
        ("[jobs]\nconcurrency = 1000000000", "[jobs] concurrency must be at most 65536"),
        ("[jobs]\nstore_mb = 1000000000", "[jobs] store_mb must be at most 1048576"),
        ("[reload]\nquiet_ms = 1000000000", "[reload] quiet_ms must be at most 60000"),
        ("[server]\nio_threads = 1000000000", "[server] io_threads must be at most 1024"),
        ("[server]\nplugin_instances = 1000000000", "[server] plugin_instances must be at most 65536"),
        ("[server]\ndrain_timeout_ms = 9000000000000000", "[server] drain_timeout_ms must be at most"),
    ] {
        let setup = Setup::new(&format!("{table}\n[models.plus]\npath = \"plus.onnx\"\n"))
            .file("plus.onnx", model("plus1"))
            .file("echo.wasm", plugin("echo"));
        let (code, _, error) = setup.run(&["check", "hostler.toml", "--quick"]);
        assert!(code == 1 && error.contains(said), "{table}: {error}");
    }
}

#[test]
fn a_hundred_thousand_faults_are_found_in_a_moment_and_the_first_of_them_shown() {
    let weights: Vec<String> = (0..100_000).map(|number| format!("v{number} = 1")).collect();
    let manifest = format!(
        "[models.plus]\npath = \"plus.onnx\"\n[routing.plus]\nweights = {{ {} }}\n",
        weights.join(", ")
    );
    let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
    let started = std::time::Instant::now();
    let (code, _, error) = setup.run(&["check", "hostler.toml", "--quick"]);
    assert_eq!(code, 1);
    for part in ["has no version \"v0\"", "and 99960 more faults"] {
        assert!(error.contains(part), "{error}");
    }
    // Generous, for busy machines; a check of each pair of them would take minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn limits_of_tenants_are_checked() {
    let tenants = "[tenants.a]\ncallers = [\"key:a\"]\nweight = 3\nrequests_per_s = 1.5\nburst_rows = 5\nrows_per_s = 10\n\
                   max_in_flight = 4\nmax_in_flight_mb = 8\n[tenants.\"*\"]\nrequests_per_s = 10\n";
    let named = "[server]\ntenant_header = \"x-tenant\"\ntrusted_proxies = [\"::1\"]\n";
    accepted(&format!("{MODEL}{named}{tenants}"));
    for (table, parts) in [
        (
            "[tenants.a]\nweight = 0\n",
            &["hostler.toml:4:10", "[tenants.\"a\"] weight must be at least 1"][..],
        ),
        ("[tenants.a]\nweight = 1001\n", &["weight must be at most 1000"]),
        ("[tenants.a]\nrequests_per_s = 0\n", &["requests_per_s must be at least 0.001"]),
        ("[tenants.a]\nrequests_per_s = nan\n", &["requests_per_s must be at least 0.001"]),
        ("[tenants.a]\nrequests_per_s = inf\n", &["requests_per_s must be at most"]),
        ("[tenants.a]\nburst_requests = 5\n", &["burst_requests is set without requests_per_s"]),
        ("[tenants.a]\nrequests_per_s = 5\nburst_requests = 0.5\n", &["burst_requests must be at least 1"]),
        (
            "[tenants.a]\nmax_in_flight = 1\n",
            &["hostler.toml:3:10", "nothing tells callers apart", "set access_rules, or tenant_header"],
        ),
        ("[tenants.a]\nmax_in_flight = 0\n", &["max_in_flight must be at least 1"]),
        (
            "[tenants.a]\nrequest_per_s = 1\n",
            &["unknown key \"request_per_s\"", "did you mean \"requests_per_s\"?"],
        ),
        (
            "[tenants.\"a b\"]\n",
            &["hostler.toml:3:10", "\"a b\" has characters that a name of a tenant cannot have"],
        ),
        (
            "[tenants.a]\ncallers = [\"shop\"]\n",
            &["callers has \"shop\", which is not the name of a caller", "key:NAME"],
        ),
        ("[tenants._other]\n", &["\"_other\" does not begin with a letter or digit"]),
        ("[tenants.a]\ncallers = [\"key:*\"]\n", &["callers has \"key:*\""]),
        (
            "[server]\ntenant_header = \"Host\"\ntrusted_proxies = [\"::1\"]\n",
            &["tenant_header = \"Host\" is a header with a meaning of its own"],
        ),
        ("[tenants.a]\ncallers = [\"plugin:p\"]\n", &["callers has \"plugin:p\""]),
        (
            "[tenants.a]\ncallers = [\"key:x\"]\n[tenants.b]\ncallers = [\"key:x\"]\n",
            &["hostler.toml:6:12", "callers has \"key:x\", which is a caller of \"a\""],
        ),
        (
            "[tenants.\"*\"]\ncallers = [\"key:x\"]\n",
            &["has callers, but it is for every tenant without a table"],
        ),
        (
            "[server]\ntenant_header = \"x-tenant\"\n",
            &["hostler.toml:4:1", "tenant_header is set without trusted_proxies"],
        ),
        (
            "[server]\ntenant_header = \"a b\"\ntrusted_proxies = [\"::1\"]\n",
            &["tenant_header = \"a b\" is not the name of a header"],
        ),
    ] {
        refused(&format!("{MODEL}{table}"), parts);
    }
}
