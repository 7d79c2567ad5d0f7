//! Spans as messages of OTLP.

use crate::traces::{SpanKind, SpanRecord, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as WireValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

/// Returns the attributes that all spans of the process have.
pub(super) fn resource(service_name: &str) -> Resource {
    let text = |key: &str, value: String| key_value(key, WireValue::StringValue(value));
    Resource {
        attributes: vec![
            text("service.name", service_name.to_owned()),
            text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            text("service.instance.id", format!("{:032x}", fastrand::u128(..))),
            key_value("process.pid", WireValue::IntValue(i64::from(std::process::id()))),
        ],
        ..Resource::default()
    }
}

pub(super) fn request(resource: &Resource, records: &[SpanRecord]) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "hostler".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let spans = records.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource = Some(resource.clone());
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

fn span(record: &SpanRecord) -> Span {
    let SpanRecord { trace, span, parent, state, name, kind, start, end, attributes, error } = record;
    let status =
        error.as_ref().map(|message| Status { message: message.to_string(), code: StatusCode::Error.into() });
    let kind = match kind {
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Internal => span::SpanKind::Internal,
    };
    Span {
        trace_id: trace.to_vec(),
        span_id: span.to_vec(),
        parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        trace_state: state.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: name.to_string(),
        kind: kind.into(),
        start_time_unix_nano: *start,
        end_time_unix_nano: *end,
        attributes: attributes.iter().map(|(key, value)| key_value(key, wire(value))).collect(),
        status,
        ..Span::default()
    }
}

fn wire(value: &Value) -> WireValue {
    match value {
        Value::Text(text) => WireValue::StringValue(text.to_string()),
        Value::Number(number) => WireValue::IntValue(*number),
    }
}

fn key_value(key: &str, value: WireValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
