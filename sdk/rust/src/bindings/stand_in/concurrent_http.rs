//! The interface `hostler:concurrent/http`.

use super::http_types::{HttpRequest, HttpResponse};
use super::types::Error;
use crate::testing::{Wait, answer_http};
use std::time::Duration;

pub async fn fetch(request: HttpRequest) -> Result<HttpResponse, Error> {
    Wait::of(Duration::ZERO).await?;
    answer_http(&request)
}
