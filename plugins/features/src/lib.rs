//! A model that looks users up in a feature store: `GET <store>/users/<id>` returns a list of
//! numbers, equally many for each user. All users of a request are looked up concurrently, and
//! other requests run concurrently in the same instance. `users` is `INT64 [-1]`, `features` is
//! `FP32 [-1, -1]`. The config key `store` is the URL of the store; the manifest must allow it.

use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, all, fetch};
use hostler_plugin::json::{self, Value};
use hostler_plugin::{Datatype, Error, Request, Tensor, config, http, tensor};

struct Features;

hostler_plugin::export!(Features: streaming_model);

impl StreamingModel for Features {
    fn metadata() -> StreamingMetadata {
        StreamingMetadata {
            inputs: vec![tensor::spec("users", Datatype::Int64, &[-1])],
            outputs: vec![tensor::spec("features", Datatype::Fp32, &[-1, -1])],
            streaming: false,
        }
    }

    async fn execute(_: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        let store = config::get("store")?.ok_or_else(|| Error::failed("config lacks \"store\""))?;
        let users = tensor::named(&inputs, "users")?.to_i64()?;
        let found = all(users.iter().map(|user| look_up(&store, *user))).await;
        let mut rows = Vec::new();
        for row in found {
            rows.push(row?);
        }
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err(Error::failed("the store has more features of one user than of another"));
        }
        let shape = [rows.len() as i64, width as i64];
        responses.send(vec![tensor::fp32("features", &shape, &rows.concat())?]).await
    }
}

async fn look_up(store: &str, user: i64) -> Result<Vec<f32>, Error> {
    let request = http::Request::get(format!("{store}/users/{user}")).header("accept", "application/json");
    let answer = fetch(request).await?;
    if answer.status == 404 {
        return Err(Error::invalid("users", format!("the store knows no user {user}")));
    }
    let text = answer.success()?.text()?;
    let number = |value: &Value| match value {
        Value::Number(number) => Some(*number as f32),
        _ => None,
    };
    let row = match json::parse(&text) {
        Ok(Value::Array(values)) => values.iter().map(number).collect(),
        _ => None,
    };
    row.ok_or_else(|| Error::failed(format!("the store answered for user {user} with no list of numbers")))
}
