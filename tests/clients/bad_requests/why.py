"""Why the two servers answer differently: one sentence per reason, by the key that a case names."""

WHY = {
    "absent": "Shared memory, sequences, log and trace settings are not offered here.",
    "behind": "Bytes behind the packed body are not what was packed; Triton passes over them.",
    "bomb": "What it unpacks to is bounded by `max_body_mb`.",
    "both": "One input has its data in one place.",
    "broken": "What cannot be read is the client's mistake, and the message says where it is.",
    "classes": "Texts have no order that would mean something.",
    "closes": "An answer says what is wrong; Triton closes the connection or resets the call.",
    "deadline": "The deadline of the caller is kept here from its arrival on; Triton heeds it only in a queue that is told to.",
    "content": "HTTP has a status for it; what is not gRPC may not understand gRPC's.",
    "dies": "Sizes and depths are checked before anything is made of them.",
    "encoding": "The header is the client's mistake; the message names the encodings that there are.",
    "framing": "What is no HTTP is answered in HTTP, where Triton closes the connection or takes it for something else.",
    "garbage": "What cannot be unpacked is refused as that.",
    "header": "`max_header_kb` and the number of headers are bounded here, and said with 431; the limits differ.",
    "kinds": "Contents are of the input's datatype and of no other.",
    "large": "`max_body_mb` bounds a request; Triton has no limit, or another.",
    "grpc_error": "The header asks for it; Triton 2.51 sends the error as a message all the same.",
    "lenient": "The verb and `te` change nothing about what the call asks for.",
    "long": "A message of an error is cut here; Triton's is longer than clients take.",
    "load": "What a client sends to a load is its mistake; a load takes keys of the manifest, never files or code.",
    "nan": "JSON has no form for it: the message names the element and `binary_data`.",
    "not_one": "`generate` is for exactly one response.",
    "nul": "The name is another one; Triton cuts names at the NUL.",
    "percent": "A name that is not UTF-8 or not percent-encoded cannot be one of a model.",
    "protocol": "The call is refused with a status of gRPC that says why.",
    "range": "Another number than was sent would be a wrong answer.",
    "ragged": "Lists must nest as the shape says.",
    "repository": "There is one repository here, and no other is taken for it.",
    "size": "The size is held against the body.",
    "status": "A client's mistake is no fault of the server.",
    "stream": "What came before it is answered, and the stream ends with a status that says why; Triton ends it as if nothing were wrong.",
    "terabyte": "A body that says that it is over `max_body_mb` is refused before it is read; Triton waits for it.",
    "time": "The call is refused with a status that says what a timeout is; Triton resets it or waits on.",
    "timeout": "Numbers below 0 are refused.",
    "twice": "It would be ambiguous which of them counts.",
    "unknown": "What is not there is not found, whatever is asked of it.",
    "unload": "What is not there cannot be unloaded; Triton says that it was.",
    "version": "A version is a name here and need not be a number: one that is not there is not found.",
    "zero": "0 is no classification here.",
}


def why(case, here, there):
    """Returns the reason, "" if the answers agree, or None if they differ without an explanation.
    """
    if here == there:
        return ""
    if case.why:
        return WHY[case.why]
    if there in ("closes", "reset"):
        return WHY["closes"]
    if here in (404, "NOT_FOUND") and there in (400, "INVALID_ARGUMENT"):
        return WHY["unknown"]
    if there in (500, "INTERNAL", "UNKNOWN"):
        return WHY["status"]
    return None
