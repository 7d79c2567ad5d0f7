//! Messages of ONNX Runtime in plain words: without error codes, source files and lines, and C++
//! signatures. The full text is in the detail of an error, for the log.

use std::fmt;

/// The most characters of a message.
const SHOWN_MAX: usize = 600;

/// Says the condition of a check that has no message of its own.
const WAS_FALSE: &str = " was false.";

/// Returns the plain words of an error of the library.
pub(super) fn plain_error(error: &impl fmt::Display) -> String {
    plain(&error.to_string())
}

/// Returns a message of the runtime without codes, places in source code and signatures.
pub(super) fn plain(message: &str) -> String {
    let mut rest = message;
    if let Some((_, inner)) = rest.rsplit_once("[ONNXRuntimeError] : ") {
        // `1 : FAIL : what`
        rest = inner.splitn(3, " : ").nth(2).unwrap_or(inner);
    }
    let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
    let rest = rest.strip_prefix("Exception during initialization: ").unwrap_or(&rest);
    let plain = match split_at_place(rest) {
        None => rest.to_owned(),
        Some((before, place, after)) => {
            let what = if place.contains('/') {
                after_check(after)
            } else {
                // `file.cc:57 Function what`
                after.split_once(' ').map_or_else(String::new, |(_, what)| what.to_owned())
            };
            let words = what.split(' ').filter(|word| !is_place(word));
            before.split(' ').chain(words).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
    };
    if ["stod", "stof", "stoi", "stol", "stoll", "stoul", "stoull"].contains(&&*plain) {
        return "a text is not a number or is out of range".into();
    }
    let plain = plain.trim_end_matches(['.', ' ']);
    match plain.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain.to_owned(),
    }
}

/// Splits a message at its first place in source code.
fn split_at_place(text: &str) -> Option<(&str, &str, &str)> {
    let place = text.split(' ').find(|word| is_place(word))?;
    let (before, after) = text.split_once(place)?;
    Some((before, place, after.trim_start()))
}

/// Returns what a check says. Its text is `Signature(of, it) condition was false. What`, where the
/// condition and the explanation may be missing.
fn after_check(text: &str) -> String {
    match text.split_once(WAS_FALSE) {
        Some((_, what)) if !what.trim().is_empty() => what.to_owned(),
        Some((check, _)) => match after_signature(check) {
            Some(condition) => format!("this condition does not hold: {}", condition.trim()),
            None => String::new(),
        },
        None => after_signature(text).unwrap_or_default().to_owned(),
    }
}

/// `/onnxruntime_src/onnxruntime/core/a.cc:360`, `tensor.cc:57`
fn is_place(word: &str) -> bool {
    let word = word.trim_matches(|one: char| "()[]{},;'\"".contains(one));
    if word.contains("onnxruntime_src/") {
        return true;
    }
    let Some((file, line)) = word.rsplit_once(':') else { return false };
    let is_line = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
    is_line && [".cc", ".h", ".hpp", ".cpp", ".cu", ".cuh", ".inl"].iter().any(|end| file.ends_with(end))
}

/// Returns the text after the signature of a function, if there is one. Its brackets are balanced.
fn after_signature(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (place, byte) in text.bytes().enumerate().skip(text.find('(')?) {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            let rest = text[place + 1..].trim_start();
            // `operator()(…)`
            if rest.starts_with('(') {
                continue;
            }
            let rest = rest.strip_prefix("const").unwrap_or(rest).trim_start();
            let rest = match rest.strip_prefix("[with ") {
                Some(with) => with.split_once("] ").map_or("", |(_, after)| after),
                None => rest,
            };
            return Some(rest.strip_prefix("::<lambda()>").unwrap_or(rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_failed_loads_say_what_is_wrong_and_nothing_of_the_source() {
        let source = "/onnxruntime_src/onnxruntime/core";
        let init = "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: ";
        for (raw, expected) in [
            (
                String::from(
                    "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. In Node, (\"\", Nope, \"\", -1) : \
                     (\"x\": tensor(float),) -> (\"y\": tensor(float),) , Error No Op registered for Nope"
                ),
                "This is an invalid model. In Node, (\"\", Nope, \"\", -1) : (\"x\": tensor(float),) -> (\"y\": \
                 tensor(float),) , Error No Op registered for Nope",
            ),
            (
                format!(
                    "[ONNXRuntimeError] : 1 : FAIL : {source}/graph/graph.cc:1587 void \
                     onnxruntime::Graph::InitializeStateFromModelFileGraphProto() This is an invalid model. Graph \
                     output (y) does not exist in the graph.\n"
                ),
                "This is an invalid model. Graph output (y) does not exist in the graph",
            ),
            (
                format!(
                    "{init}{source}/optimizer/initializer.cc:51 onnxruntime::Initializer::Initializer(const \
                     onnx::TensorProto&, const std::filesystem::__cxx11::path&) [ONNXRuntimeError] : 1 : FAIL : \
                     tensorprotoutils.cc:1534 ValidateSize Initializer 'w': raw_data size (4 bytes) is wrong\n"
                ),
                "Initializer 'w': raw_data size (4 bytes) is wrong",
            ),
            (
                format!(
                    "{init}{source}/providers/cpu/ml/label_encoder.h:65 onnxruntime::ml::LabelEncoder_2<TKey, \
                     TValue>::LabelEncoder_2(const onnxruntime::OpKernelInfo&) [with TKey = long int; TValue = \
                     std::__cxx11::basic_string<char>] num_keys == num_values was false. The attributes must have \
                     the same length."
                ),
                "The attributes must have the same length",
            ),
            (
                format!(
                    "{init}{source}/providers/cpu/rnn/lstm_base.h:24 onnxruntime::LSTMBase::LSTMBase(const \
                     onnxruntime::OpKernelInfo&) info.GetAttr(\"hidden_size\", &value).IsOK() was false. \n"
                ),
                "this condition does not hold: info.GetAttr(\"hidden_size\", &value).IsOK()",
            ),
            (
                format!(
                    "{init}{source}/providers/cpu/text/string_normalizer.cc:235 \
                     onnxruntime::StringNormalizer::Locale::Locale(const std::string&)::<lambda()> Failed to construct \
                     locale with name:en_US.UTF-8:what"
                ),
                "Failed to construct locale with name:en_US.UTF-8:what",
            ),
            (
                format!(
                    "[ONNXRuntimeError] : 1 : FAIL : {source}/framework/x.cc:9 virtual onnxruntime::common::Status \
                     onnxruntime::X::Do(int) const What it is."
                ),
                "What it is",
            ),
            (
                "[ONNXRuntimeError] : 1 : FAIL : Validation failed for initializer: w. Error: It is outside. \
                 tensorprotoutils.cc:461 FromDir It does not exist: \"/m/w.bin\""
                    .into(),
                "Validation failed for initializer: w. Error: It is outside. It does not exist: \"/m/w.bin\"",
            ),
            ("Sorted, however input \nname: a\n is not.".into(), "Sorted, however input name: a is not"),
        ] {
            assert_eq!(plain(&raw), expected);
        }
        assert!(plain(&"é".repeat(5000)).chars().count() <= SHOWN_MAX + 1);
    }
}
