//! Which jobs `GET /jobs` lists, and which `POST /admin/jobs/purge` deletes.

use crate::support::jobs::{cancel, ended, show, submit};
use crate::support::slow::deed;
use crate::support::{Answer, Client, Host, Setup, plugin};
use serde_json::{Value, json};

const MANIFEST: &str = "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n\
                        [models.\"other:2\"]\nplugin = \"hostile\"\n[models.\"other:3\"]\nplugin = \"hostile\"\n\
                        [routing.other]\nweights = { 2 = 100, 3 = 0 }\n\
                        [stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\n";

fn start() -> Host {
    Setup::new(MANIFEST).file("hostile.wasm", plugin("hostile")).start()
}

fn to(model: &str, version: &str, what: &str) -> Value {
    let mut body = deed(model, what);
    body["version"] = version.into();
    body
}

fn listed(host: &Host, query: &str) -> Vec<String> {
    let answer = host.get(&format!("/jobs?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let page = answer.json();
    assert_eq!(page["next"], Value::Null, "{query}");
    let ids = page["jobs"].as_array().expect("jobs").iter();
    ids.map(|job| job["job_id"].as_str().expect("an id").to_owned()).collect()
}

fn purge(host: &Host, query: &str) -> Answer {
    Client::new(host.admin).post(&format!("/admin/jobs/purge?{query}"), "")
}

#[test]
fn each_filter_selects_its_jobs_and_several_select_those_of_all() {
    let host = start();
    let second = submit(&host, &to("other", "2", "ok"));
    ended(&host, &second, "succeeded");
    let third = submit(&host, &to("other", "3", "ok"));
    ended(&host, &third, "succeeded");
    let running = submit(&host, &to("hostile", "1", "sleep"));
    let stopped = submit(&host, &to("hostile", "1", "sleep"));
    cancel(&host, &stopped);
    let time = |id: &str, key: &str| show(&host, id)[key].to_string();
    let created = time(&third, "created_at");
    let seconds: f64 = created.parse().expect("seconds");
    for (query, expected) in [
        (String::new(), vec![&stopped, &running, &third, &second]),
        ("state=succeeded".into(), vec![&third, &second]),
        ("state=cancelled,succeeded".into(), vec![&stopped, &third, &second]),
        ("state=pending,running,failed".into(), vec![&running]),
        ("model=other".into(), vec![&third, &second]),
        ("model=other&version=3".into(), vec![&third]),
        ("model=other&version=1".into(), vec![]),
        ("model=hostile&state=succeeded".into(), vec![]),
        (format!("created_after={created}"), vec![&stopped, &running, &third]),
        (format!("created_before={created}"), vec![&second]),
        (format!("created_after={created}&created_before={}", time(&running, "created_at")), vec![&third]),
        (format!("ended_before={}", time(&third, "ended_at")), vec![&second]),
        (format!("ended_before={}&state=cancelled", seconds + 3600.0), vec![&stopped]),
        (format!("created_before={}", seconds as u64 - 3600), vec![]),
        ("created_after=2001-01-01&created_before=2001-01-02T00:00:00Z".into(), vec![]),
        ("created_after=2001-01-01T00:00:00%2B01:00&state=running".into(), vec![&running]),
        ("created_after=2001-01-01T00:00:00+01:00&state=running".into(), vec![&running]),
    ] {
        let expected: Vec<String> = expected.into_iter().cloned().collect();
        assert_eq!(listed(&host, &query), expected, "{query}");
    }
    for (query, field, parts) in [
        ("state=failed,done", "state", &["no state \"done\""][..]),
        ("version=1", "version", &["version needs model"]),
        ("state=failed&state=timeout", "state", &["given twice", "state=failed,timeout"]),
        ("created_after=tomorrow", "created_after", &["created_after is \"tomorrow\"", "seconds since 1970"]),
        ("ended_before=2026-02-30", "ended_before", &["ended_before is \"2026-02-30\""]),
        ("created_before=", "created_before", &["created_before is \"\""]),
    ] {
        let error = host.get(&format!("/jobs?{query}")).refused(400, "invalid_input", parts);
        assert_eq!(error["field"], field, "{query}");
    }
    host.get("/jobs?created=1").refused(
        400,
        "invalid_input",
        &["the query \"created\" is not known", "created_after"],
    );
    cancel(&host, &running);
}

#[test]
fn a_purge_over_http_says_what_it_has_done() {
    let host = start();
    let second = submit(&host, &to("other", "2", "ok"));
    let third = submit(&host, &to("other", "3", "ok"));
    let running = submit(&host, &to("hostile", "1", "sleep"));
    ended(&host, &second, "succeeded");
    ended(&host, &third, "succeeded");
    let done = |query: &str| {
        let answer = purge(&host, query);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()
    };
    for (query, parts) in [
        ("", &["no filter given", "all=true"][..]),
        ("dry_run=true", &["no filter given"]),
        ("all=true&state=failed", &["contradict each other"]),
        ("state=pending", &["cannot purge jobs that are pending"]),
        ("older_than_s=week", &["older_than_s is \"week\""]),
        ("model=other&modle=x", &["did you mean \"model\"?"]),
        ("all=true&after=x", &["after is \"x\""]),
    ] {
        purge(&host, query).refused(400, "invalid_input", parts);
    }
    let answer = Client::new(host.admin).get("/admin/jobs/purge?all=true");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    host.post("/admin/jobs/purge?all=true", "").refused(404, "not_found", &["no route"]);
    assert_eq!(listed(&host, ""), [&*running, &third, &second], "nothing was deleted so far");
    assert_eq!(done("model=other&dry_run"), json!({"purged": 2, "dry_run": true, "next": null}));
    assert_eq!(done("model=other&version=2"), json!({"purged": 1, "dry_run": false, "next": null}));
    assert_eq!(listed(&host, ""), [&*running, &third]);
    assert_eq!(done("all=true"), json!({"purged": 1, "dry_run": false, "next": null}));
    assert_eq!(listed(&host, ""), [&*running]);
    cancel(&host, &running);
}
