"""The mistakes: what is changed in a new transformer project, in each language.

An edit is `(file, old, new)`. `§` in `new` marks the line at fault; it is removed before the file is
written. The message must name the plugin, `function` (None if no function is at fault: a syntax error,
an import, the manifest), and the marked line, or `key` if the mistake is a name or a key.
"""

from dataclasses import dataclass, field


@dataclass
class Plant:
    edits: list
    # In the message of a compiler, which knows no roles, the text of the line at fault counts as well.
    function: str | None
    key: str | None = None
    # Why a language has no such mistake.
    absent: str | None = None


@dataclass
class Mistake:
    id: str
    title: str
    plants: dict = field(default_factory=dict)
    # Of the few that a test runs.
    is_short: bool = False


MISTAKES = []

# The lines of the templates that edits replace.
PY_PRE = '        return [hostler.tensor("x", "FP32", [1], [value])]\n'
PY_POST = '        return hostler.Json(json.dumps({"answer": answer}))\n'
JS_PRE = '    return [hostler.tensor("x", "FP32", [1], [value])];\n'
JS_POST = "    return hostler.json(JSON.stringify({ answer }));\n"
RS_PRE = '        Ok(vec![tensor::fp32("x", &[1], &[value as f32])?])\n'
RS_POST = '        Ok(Payload::Json(format!("{{\\"answer\\":{}}}", answer[0])))\n'
PY_TOP, JS_TOP = "import hostler_plugin as hostler\n", 'import * as hostler from "hostler-plugin";\n'
RS_TOP = "use hostler_plugin::json::{self, Value};\n"
APP = {"python": "app.py", "js": "app.js", "ts": "app.ts", "rust": "src/lib.rs"}
PRE = {"python": PY_PRE, "js": JS_PRE, "ts": JS_PRE, "rust": RS_PRE}
POST = {"python": PY_POST, "js": JS_POST, "ts": JS_POST, "rust": RS_POST}
TOP = {"python": PY_TOP, "js": JS_TOP, "ts": JS_TOP, "rust": RS_TOP}
INDENT = {"python": 8, "js": 4, "ts": 4, "rust": 8}


def mistake(id, title, *, short=False, **plants):
    """Adds a mistake. What is given as `js` is that of `ts` too, unless that has its own."""
    if "ts" not in plants:
        js = plants["js"]
        edits = [(file.replace(".js", ".ts"), old, new) for file, old, new in js.edits]
        plants["ts"] = Plant(edits, js.function, js.key, js.absent)
    MISTAKES.append(Mistake(id, title, {name: plants[name] for name in ("rust", "python", "ts", "js")}, short))


def _lines(language, text):
    return "".join(" " * INDENT[language] + line + "\n" for line in text.split("\n"))


class In:
    """Plants in the body of a function: `before` puts lines before its last line, `instead` replaces it."""

    def __init__(self, function, anchors):
        self.function, self.anchors = function, anchors

    def before(self, language, text, *more, **options):
        anchor = self.anchors[language]
        return self._plant(language, anchor, _lines(language, text) + anchor, more, options)

    def instead(self, language, text, *more, **options):
        return self._plant(language, self.anchors[language], _lines(language, text), more, options)

    def _plant(self, language, old, new, more, options):
        options.setdefault("function", self.function)
        return Plant([(APP[language], old, new), *more], **options)


pre, post = In("preprocess", PRE), In("postprocess", POST)


def at_top(language, text, *more, **options):
    options.setdefault("function", None)
    return Plant([(APP[language], TOP[language], TOP[language] + text + "\n"), *more], **options)


def edit(language, old, new, *more, **options):
    return Plant([(APP[language], old, new), *more], **options)


def manifest(old, new):
    return ("hostler.toml", old, new)


def absent(why):
    return Plant([], None, absent=why)


TIMEOUT = manifest('instances = "reused"\n', 'instances = "reused"\ntimeout_ms = 300\n')
PARAMETER = ("request.json", '"data"', '"parameters": {"top": 3}, "data"')
RS_LOG = ("src/lib.rs", "Transformer, tensor}", "Transformer, log, tensor}")

mistake(
    "return-type", "the function returns a value of a wrong type", short=True,
    python=pre.instead("python", 'return {"x": value}',
                       ("app.py", "    def preprocess", "    §def preprocess")),
    js=pre.instead("js", "return { x: value };", ("app.js", "  preprocess(", "  §preprocess(")),
    ts=pre.instead("ts", "return { x: value };", ("app.ts", "  preprocess(", "  §preprocess(")),
    rust=pre.instead("rust", "§Ok(vec![value as f32])"),
)
mistake(
    "no-return", "a `return` is missing",
    python=post.instead("python", 'hostler.Json(json.dumps({"answer": answer}))',
                        ("app.py", "    def postprocess", "    §def postprocess")),
    js=post.instead("js", "hostler.json(JSON.stringify({ answer }));", ("app.js", "  postprocess(", "  §postprocess(")),
    ts=post.instead("ts", "hostler.json(JSON.stringify({ answer }));", ("app.ts", "  postprocess(", "  §postprocess(")),
    rust=edit("rust", RS_POST, RS_POST.replace(")))\n", ")));\n"),
              ("src/lib.rs", "    fn postprocess", "    §fn postprocess"), function="postprocess"),
)
mistake(
    "throws-preprocess", "`preprocess` throws or panics", short=True,
    python=pre.before("python", '§raise RuntimeError("the table is empty")'),
    js=pre.before("js", '§throw new Error("the table is empty");'),
    ts=pre.before("ts", '§if (value !== 0) throw new Error("the table is empty");'),
    rust=pre.before("rust", '§assert!(value < 0.0, "the table is empty");'),
)
mistake(
    "throws-postprocess", "`postprocess` throws or panics: a value that is not there",
    python=post.before("python", "§first = next(iter(()))"),
    js=post.before("js", "§const first = [].find(Boolean).value;"),
    ts=post.before("ts", "const none: { value: number }[] = [];\n§none.find(Boolean)!.value;"),
    rust=post.before("rust", "let none: Vec<f32> = Vec::new();\n§none.first().unwrap();"),
)
mistake(
    "at-import", "the module fails when it is imported or initialised",
    python=at_top("python", '\n§LIMIT = int("ten")'),
    js=at_top("js", '\n§const limit = JSON.parse("ten");'),
    rust=at_top(
        "rust",
        'use std::sync::LazyLock;\n\n§static LIMIT: LazyLock<f64> = LazyLock::new(|| "ten".parse().unwrap());',
        ("src/lib.rs", RS_PRE, "        let value = value.min(*LIMIT);\n" + RS_PRE), function="preprocess"),
)
mistake(
    "misspelt-function", "the name of a function is misspelt",
    python=edit("python", "    def preprocess", "    §def preproces", function="preproces"),
    js=edit("js", "  preprocess(", "  §preproces(", function="preproces"),
    ts=edit("ts", "  preprocess(", "  §preproces(", function="preproces"),
    rust=edit("rust", "    fn preprocess", "    §fn preproces", function="preproces"),
)
mistake(
    "missing-function", "a function is missing",
    python=edit("python", "    def postprocess", "    def _old_result",
                ("app.py", "class Transformer", "§class Transformer"), function="postprocess"),
    js=edit("js", "  postprocess(", "});\n\nconst old = ({\n  result(",
            ("app.js", "export const transformer", "§export const transformer"), function="postprocess"),
    ts=edit("ts", "  postprocess(", "});\n\nconst old = ({\n  result(",
            ("app.ts", "export const transformer", "§export const transformer"), function="postprocess"),
    rust=edit("rust", "    fn postprocess", "}\n\nimpl Number {\n    fn old_result",
              ("src/lib.rs", "impl Transformer for", "§impl Transformer for"), function="postprocess"),
)
mistake(
    "argument-count", "a function has a wrong number of parameters",
    python=edit("python", "preprocess(self, request, input)", "§preprocess(self, input)", function="preprocess"),
    js=edit("js", "preprocess(request, input)", "§preprocess(input)", function="preprocess"),
    ts=edit("ts", "preprocess(request: hostler.Request, input: hostler.Payload)",
            "§preprocess(input: hostler.Payload)", function="preprocess"),
    rust=edit("rust", "fn preprocess(_: &Request, input: Payload)", "§fn preprocess(input: Payload)",
              function="preprocess"),
)
mistake(
    "datatype", "a tensor has another datatype than the model's input",
    python=pre.instead("python", 'return [hostler.tensor("x", "INT64", [1], [int(value)])]', key='"x"'),
    js=pre.instead("js", 'return [hostler.tensor("x", "INT64", [1], [value])];', key='"x"'),
    rust=pre.instead("rust", 'Ok(vec![tensor::int64("x", &[1], &[value as i64])?])', key='"x"'),
)
mistake(
    "shape", "the shape does not fit the number of elements",
    python=pre.instead("python", '§return [hostler.tensor("x", "FP32", [2], [value])]'),
    js=pre.instead("js", '§return [hostler.tensor("x", "FP32", [2], [value])];'),
    rust=pre.instead("rust", 'Ok(vec![tensor::fp32("x", &[2], &[value as f32])?])', key='"x"'),
)
mistake(
    "input-name", "a tensor has a name that the model does not have",
    python=pre.instead("python", 'return [hostler.tensor("z", "FP32", [1], [value])]', key='"z"'),
    js=pre.instead("js", 'return [hostler.tensor("z", "FP32", [1], [value])];', key='"z"'),
    rust=pre.instead("rust", 'Ok(vec![tensor::fp32("z", &[1], &[value as f32])?])', key='"z"'),
)
mistake(
    "output-name", "the plugin looks for an output that the model does not have",
    python=post.before("python", '§hostler.named(outputs, "z")', key='"z"'),
    js=post.before("js", '§hostler.named(outputs, "z");', key='"z"'),
    rust=post.before("rust", 'tensor::named(&outputs, "z")?;', key='"z"'),
)
mistake(
    "used-after-return", "a tensor is used after it was returned to the host",
    python=pre.instead("python", 'self.kept = hostler.tensor("x", "FP32", [1], [value])\nreturn [self.kept]',
                       ("app.py", PY_POST, "        §hostler.elements(self.kept)\n" + PY_POST), function="postprocess"),
    js=pre.instead("js", 'kept = hostler.tensor("x", "FP32", [1], [value]);\nreturn [kept];',
                   ("app.js", JS_TOP, JS_TOP + "\nlet kept;\n"),
                   ("app.js", JS_POST, "    §hostler.elements(kept);\n" + JS_POST), function="postprocess"),
    ts=pre.instead("ts", 'kept = hostler.tensor("x", "FP32", [1], [value]);\nreturn [kept];',
                   ("app.ts", JS_TOP, JS_TOP + "\nlet kept: hostler.Tensor;\n"),
                   ("app.ts", JS_POST, "    §hostler.elements(kept);\n" + JS_POST), function="postprocess"),
    rust=pre.instead("rust", 'let x = tensor::fp32("x", &[1], &[value as f32])?;\nlet inputs = vec![x];\n'
                             "§log::info(&x.name());\nOk(inputs)", RS_LOG),
)
mistake(
    "same-tensor-twice", "one tensor is returned twice",
    python=pre.instead("python", 'x = hostler.tensor("x", "FP32", [1], [value])\nreturn [x, x]',
                       ("app.py", "    def preprocess", "    §def preprocess")),
    js=pre.instead("js", 'const x = hostler.tensor("x", "FP32", [1], [value]);\nreturn [x, x];',
                   ("app.js", "  preprocess(", "  §preprocess(")),
    ts=pre.instead("ts", 'const x = hostler.tensor("x", "FP32", [1], [value]);\nreturn [x, x];',
                   ("app.ts", "  preprocess(", "  §preprocess(")),
    rust=pre.instead("rust", 'let x = tensor::fp32("x", &[1], &[value as f32])?;\n§Ok(vec![x, x])'),
)
mistake(
    "index", "an index is out of range",
    python=pre.before("python", "labels = [1, 2, 3]\n§labels[int(value)]"),
    js=pre.before("js", 'const labels = ["a", "b"];\n§labels[value].trim();'),
    rust=pre.before("rust", "let labels = [1, 2, 3];\n§let _ = std::hint::black_box(labels[value as usize]);"),
)
mistake(
    "division", "a division by zero",
    python=pre.before("python", "§value / (value - value)"),
    js=pre.before("js", "§1n / BigInt(value - value);"),
    rust=pre.before("rust", "let zero = value as i64 - value as i64;\n§std::hint::black_box(1 / std::hint::black_box(zero));"),
)
mistake(
    "invalid-json", "the text of the answer is not JSON", short=True,
    python=post.instead("python", 'return hostler.Json("{answer: %s}" % answer)', key="answer"),
    js=post.instead("js", "return hostler.json(`{answer: ${answer}}`);", key="answer"),
    rust=post.instead("rust", 'Ok(Payload::Json(format!("{{answer: {}}}", answer[0])))', key="answer"),
)
mistake(
    "nan-in-json", "a number that JSON cannot express",
    python=post.before("python", 'answer = float("nan")', key="NaN"),
    js=post.instead("js", "§return hostler.json(JSON.stringify({ answer: BigInt(answer) }));"),
    ts=post.instead("ts", "§return hostler.json(JSON.stringify({ answer: BigInt(answer as number) }));"),
    rust=post.before("rust", "let answer = [answer[0] - f32::INFINITY + f32::INFINITY];", key="NaN"),
)
mistake(
    "parameter-type", "a request parameter is used as another type",
    python=pre.before("python", '§request.parameter("top") + 1', PARAMETER),
    js=pre.before("js", '§request.parameter("top").val.trim();', PARAMETER),
    ts=pre.before("ts", '§(request.parameter("top")!.val as string).trim();', PARAMETER),
    rust=pre.before("rust", 'request.text("top")?;', PARAMETER, ("src/lib.rs", "preprocess(_:", "preprocess(request:"),
                    key='"top"'),
)
mistake(
    "asset", "an asset is not in the manifest",
    python=pre.before("python", '§hostler.asset("labels")', key='"labels"'),
    js=pre.before("js", '§hostler.asset("labels");', key='"labels"'),
    rust=pre.before("rust", 'hostler_plugin::assets::read("labels")?;', key='"labels"'),
)
mistake(
    "config", "a config key is not in the manifest",
    python=pre.before("python", '§float(hostler.config("scale"))'),
    js=pre.before("js", '§hostler.config("scale").trim();'),
    ts=pre.before("ts", '§hostler.config("scale")!.trim();'),
    rust=pre.before("rust", '§hostler_plugin::config::get("scale")?.unwrap();'),
)
mistake(
    "endless-loop", "a loop does not end",
    python=pre.before("python", "§while value: pass", TIMEOUT, key="timeout_ms"),
    js=pre.before("js", "§while (value) {}", TIMEOUT, key="timeout_ms"),
    rust=pre.before("rust", "§while std::hint::black_box(value) > 0.0 {}", TIMEOUT, key="timeout_ms"),
)
mistake(
    "recursion", "a recursion is too deep",
    python=pre.before("python", "depth(value)", ("app.py", PY_TOP, PY_TOP + "\n\ndef depth(n):\n    §return depth(n) + 1\n"),
                      function="depth"),
    js=pre.before("js", "depth(value);", ("app.js", JS_TOP, JS_TOP + "\n§const depth = (n) => depth(n + 1) + 1;\n"),
                  function="depth"),
    ts=pre.before("ts", "depth(value);", ("app.ts", JS_TOP, JS_TOP + "\n§const depth = (n: number): number => depth(n + 1) + 1;\n"),
                  function="depth"),
    rust=pre.before("rust", "depth(value as u64);",
                    ("src/lib.rs", "struct Number;\n", "struct Number;\n\n#[allow(unconditional_recursion)]\n"
                     "fn depth(n: u64) -> u64 {\n    let room = std::hint::black_box([n; 64]);\n    §depth(room[3] + 1) + room[5]\n}\n"),
                    function="depth"),
)
mistake(
    "memory", "more memory than the plugin may have",
    python=pre.before("python", '§bytes(1 << 30)', key="memory_mb"),
    js=pre.before("js", "const held = [];\n§for (;;) held.push(new Uint8Array(1 << 24));", key="memory_mb"),
    ts=pre.before("ts", "const held: Uint8Array[] = [];\n§for (let n = 0; n < 1e6; n++) held.push(new Uint8Array(1 << 24));", key="memory_mb"),
    rust=pre.before("rust", "§std::hint::black_box(vec![1u8; 1 << 30]);", key="memory_mb"),
)
mistake(
    "unknown-model", "a call of a model that the manifest does not have",
    python=pre.before("python", '§hostler.get_model("pluss")', key='"pluss"'),
    js=pre.before("js", '§getModel("pluss");', ("app.js", JS_TOP, JS_TOP + 'import { getModel } from "hostler-plugin/executor";\n'), key='"pluss"'),
    ts=pre.before("ts", '§getModel("pluss");', ("app.ts", JS_TOP, JS_TOP + 'import { getModel } from "hostler-plugin/executor";\n'), key='"pluss"'),
    rust=pre.before("rust", 'hostler_plugin::models::get("pluss", None)?;', key='"pluss"'),
)
ROLE = [manifest('path = "model.onnx"\ntransformer = ', '§plugin = ')]
mistake(
    "wrong-role", "the manifest uses the plugin in a role that it does not have",
    python=Plant(ROLE, None, key='model "plus'), js=Plant(ROLE, None, key='model "plus'),
    rust=Plant(ROLE, None, key='model "plus'),
)
mistake(
    "native-package", "something that a component cannot have: native code, Node, threads",
    python=at_top("python", "§import numpy", function=None),
    js=at_top("js", '§import { readFileSync } from "node:fs";\nglobalThis.read = readFileSync;', function=None),
    ts=at_top("ts", '// @ts-ignore\n§import { readFileSync } from "node:fs";\nconsole.log(readFileSync);', function=None),
    rust=pre.before("rust", "§std::thread::spawn(|| 1);"),
)
mistake(
    "no-package", "a package is not installed",
    python=at_top("python", "§import tabulate", function=None),
    js=at_top("js", '§import chunk from "left-pad";\nconsole.log(chunk);', function=None),
    rust=at_top("rust", "§use rand::Rng;", function=None),
)
mistake(
    "syntax", "a syntax error",
    python=pre.before("python", "§if value", function=None),
    js=pre.before("js", "§if (value {", function=None),
    rust=pre.before("rust", "§let = value;", function=None),
)
mistake(
    "encoding", "the file is not saved in UTF-8",
    python=at_top("python", '\n§NAME = "caf\udce9"'),
    js=at_top("js", '\n§export const name = "caf\udce9";'),
    rust=at_top("rust", '\n§pub const NAME: &str = "caf\udce9";'),
)
