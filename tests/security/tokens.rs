//! JSON web tokens and certificates of clients as names in access rules.

use crate::support::certificates::Certificates;
use crate::support::tls::TlsClient;
use crate::support::{Answer, Client, Host, Setup, model, replace};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// An issuer of tokens with one key.
struct Issuer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        Issuer { id, pair: EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("a key") }
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn jwks(&self) -> String {
        let (x, y) = self.public()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id, "x": x, "y": y});
        json!({"keys": [key, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}]}).to_string()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": self.id}), claims)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Valid claims, with changes; `null` removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "sub": "alice", "iss": "https://issuer.example.org", "aud": ["hostler", "other"],
        "exp": now() + 600, "groups": ["ops", "team-a"],
    });
    let fields = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(fields.remove(name)),
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    claims
}

const RULES: &str = r#"
[tokens]
jwks = "jwks.json"
algorithms = ["ES256"]
issuer = "https://issuer.example.org"
audience = "hostler"
leeway_s = 0

[[rules]]
who = ["user:alice"]
verbs = ["predict", "jobs"]
models = ["plus"]

[[rules]]
who = ["group:team-*"]
verbs = ["read"]

[[rules]]
who = ["cert:triton.test"]
verbs = ["predict"]
models = ["plus"]
"#;

const MANIFEST: &str = "[server]\naccess_rules = \"access.toml\"\n[models.plus]\npath = \"plus.onnx\"\n";

fn start(issuer: &Issuer) -> Host {
    Setup::new(MANIFEST)
        .file("plus.onnx", model("plus1"))
        .text("access.toml", RULES)
        .text("jwks.json", &issuer.jwks())
        .start()
}

fn ask(client: &mut Client, token: &str, method: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let body = if method == "POST" { r#"{"model":"plus","data":[1]}"# } else { "" };
    client.request(method, path, &[("authorization", &bearer)], body.as_bytes())
}

#[test]
fn only_valid_tokens_are_accepted() {
    let (issuer, stranger) = (Issuer::new("one"), Issuer::new("one"));
    let host = start(&issuer);
    let predict = |token: &str| ask(&mut Client::new(host.http), token, "POST", "/predict");
    let good = issuer.token(&claims(json!({})));
    assert_eq!(predict(&good).status, 200, "{}", predict(&good).text());
    assert_eq!(ask(&mut Client::new(host.http), &good, "GET", "/models").status, 200, "by a group");
    let other = issuer.token(&claims(json!({"sub": "bob", "groups": ["ops"]})));
    predict(&other).refused(403, "forbidden", &["user:bob may not"]);
    let mut parts: Vec<&str> = good.split('.').collect();
    let forged = encoded(&claims(json!({"sub": "alice", "groups": ["team-b"]})));
    parts[1] = &forged;
    let swapped = parts.join(".");
    // The public key as a shared secret, as in the known confusion of algorithms.
    let confused = {
        let message = format!(
            "{}.{}",
            encoded(&json!({"alg": "HS256", "typ": "JWT", "kid": "one"})),
            encoded(&claims(json!({})))
        );
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.public());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
    };
    let shared = {
        let message =
            format!("{}.{}", encoded(&json!({"alg": "HS256", "kid": "shared"})), encoded(&claims(json!({}))));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
    };
    let unsigned = format!("{}.{}.", encoded(&json!({"alg": "none"})), encoded(&claims(json!({}))));
    let with = |header: Value| issuer.sign(&header, &claims(json!({})));
    let of = |changes: Value| issuer.token(&claims(changes));
    for (token, part) in [
        (of(json!({"exp": now() - 5})), "it has expired"),
        (of(json!({"exp": null})), "it lacks exp, iss or aud"),
        (of(json!({"exp": "never"})), "the key or token is not accepted"),
        (of(json!({"exp": -1})), "the key or token is not accepted"),
        (of(json!({"exp": 1e300})), "the key or token is not accepted"),
        (of(json!({"nbf": now() + 600})), "it is not valid yet"),
        (of(json!({"nbf": "now"})), "the key or token is not accepted"),
        (of(json!({"aud": "another"})), "it is for another audience"),
        (of(json!({"aud": null})), "it lacks exp, iss or aud"),
        (of(json!({"iss": "https://evil.example"})), "it is of another issuer"),
        (of(json!({"iss": null})), "it lacks exp, iss or aud"),
        (of(json!({"iss": ["https://evil.example", "https://issuer.example.org"]})), "its iss is not a text"),
        (of(json!({"sub": null})), "it has no subject"),
        (of(json!({"sub": ["alice"]})), "the key or token is not accepted"),
        (of(json!({"sub": "a\nb"})), "control characters"),
        (of(json!({"groups": vec!["g"; 101]})), "more than 100 groups"),
        (of(json!({"pad": "x".repeat(20_000)})), "longer than 16 KiB"),
        (stranger.token(&claims(json!({}))), "its signature is not that of the key"),
        (swapped, "its signature is not that of the key"),
        (confused, "no key of the set fits"),
        (shared, "no key of the set fits"),
        (unsigned, "its header cannot be read"),
        (with(json!({"alg": "ES256", "kid": "two"})), "no key of the set fits"),
        (with(json!({"alg": "RS256", "kid": "one"})), "no key of the set fits"),
        (with(json!({"alg": "ES256", "kid": "one", "crit": ["x"]})), "the key or token is not accepted"),
        ("a.b.c".to_owned(), "its header cannot be read"),
        (good[..good.len() - 8].to_owned(), "the key or token is not accepted"),
    ] {
        let answer = predict(&token);
        answer.refused(401, "unauthenticated", &[part]);
    }
    assert!(!(host.log() + &host.stdout().join("\n")).contains(&good[..40]), "no token is written");
}

#[test]
fn a_token_ends_on_an_open_connection_and_keys_rotate() {
    let (issuer, next) = (Issuer::new("one"), Issuer::new("two"));
    let host = start(&issuer);
    let mut client = Client::new(host.http);
    let short = issuer.token(&claims(json!({"exp": now() + 3})));
    assert_eq!(ask(&mut client, &short, "POST", "/predict").status, 200);
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while ask(&mut client, &short, "POST", "/predict").status != 401 {
        assert!(std::time::Instant::now() < until, "the token does not end");
    }
    let good = issuer.token(&claims(json!({})));
    assert_eq!(ask(&mut client, &good, "POST", "/predict").status, 200);
    replace(&host.path("jwks.json"), next.jwks().as_bytes());
    host.wait_for_log(&["access rules applied", "generation=2"]);
    assert_eq!(ask(&mut client, &good, "POST", "/predict").status, 401, "its key was taken away");
    assert_eq!(ask(&mut client, &next.token(&claims(json!({}))), "POST", "/predict").status, 200);
}

#[test]
fn the_table_of_tokens_is_checked() {
    let issuer = Issuer::new("one");
    for (from, to, part) in [
        ("[\"ES256\"]", "[\"HS256\"]", "with a shared secret"),
        ("[\"ES256\"]", "[\"none\"]", "is not accepted"),
        ("[\"ES256\"]", "[]", "algorithms is empty"),
        ("[\"ES256\"]", "[\"RS256\"]", "no key for RS256"),
        ("audience = \"hostler\"\n", "", "audience"),
        ("audience = \"hostler\"", "audience = \"\"", "audience is empty"),
        ("leeway_s = 0", "leeway_s = 3600", "at most 300"),
        ("jwks.json", "gone.json", "gone.json"),
        ("jwks.json", "short.json", "x and y must have 32 bytes each"),
    ] {
        let setup = Setup::new(MANIFEST)
            .file("plus.onnx", model("plus1"))
            .text("access.toml", &RULES.replace(from, to))
            .text("jwks.json", &issuer.jwks())
            .text("short.json", &issuer.jwks().replace("\"x\":\"", "\"x\":\"AAAA"));
        let (code, _, err) = setup.run(&["check", "--quick"]);
        assert!(code != 0 && err.contains(part), "{to}: {err}");
    }
}

#[test]
fn a_certificate_names_its_client() {
    let (issuer, certificates) = (Issuer::new("one"), Certificates::make());
    let tls = "\n[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n\
               client_certificates = \"optional\"\n";
    let host = Setup::new(&MANIFEST.replace("\n[models", &format!("{tls}[models")))
        .file("plus.onnx", model("plus1"))
        .file("server.pem", certificates.path("server.pem"))
        .file("server.key", certificates.path("server.key"))
        .file("ca.pem", certificates.path("ca.pem"))
        .text("access.toml", RULES)
        .text("jwks.json", &issuer.jwks())
        .start();
    let ca = certificates.path("ca.pem");
    let known = TlsClient::new(&ca, Some((certificates.path("client.pem"), certificates.path("client.key"))));
    let nameless = TlsClient::new(&ca, None);
    for alpn in [&["http/1.1"][..], &["h2"]] {
        let ask = |client: &TlsClient, path: &str| {
            let reply = client.request(host.http, alpn, "POST", path, r#"{"model":"plus","data":[1]}"#);
            let reply = reply.expect("a reply");
            (reply.status, reply.body)
        };
        assert_eq!(ask(&known, "/predict").0, 200, "{:?}", ask(&known, "/predict"));
        let (status, body) = ask(&known, "/predict/async");
        assert!(status == 403 && body.contains("cert:triton.test may not"), "{body}");
        assert_eq!(ask(&nameless, "/predict").0, 401);
    }
}
