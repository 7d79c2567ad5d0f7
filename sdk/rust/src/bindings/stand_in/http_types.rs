//! The interface `http-types`.

/// An HTTP request. [`Request::get`](HttpRequest::get) and [`Request::post`](HttpRequest::post)
/// create one.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// In upper case: `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`.
    pub method: String,
    /// For example `https://features.internal:8080/users/7?fields=age`.
    pub url: String,
    /// Names and values. The host sets `host`, `content-length` and the other headers of the
    /// connection; the plugin cannot.
    pub headers: Vec<(String, String)>,
    /// The content. Empty for none.
    pub body: Vec<u8>,
    /// The milliseconds from the call to the last byte of the response, if shorter than the
    /// manifest's.
    pub timeout_ms: Option<u64>,
}

/// The response of an HTTP server.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case. A value that is not UTF-8 is read as Latin-1.
    pub headers: Vec<(String, String)>,
    /// The body as the server sent it: compressed content is not decompressed.
    pub body: Vec<u8>,
}
