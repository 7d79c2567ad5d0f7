//! The interface `http`.

use super::http_types::{HttpRequest, HttpResponse};
use super::types::Error;
use crate::testing::answer_http;

pub fn fetch(request: &HttpRequest) -> Result<HttpResponse, Error> {
    answer_http(request)
}
