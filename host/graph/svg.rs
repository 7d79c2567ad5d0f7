//! A graph as SVG. Attributes give it a look of its own; a page overrides them with a style sheet.

use super::definition::{Graph, Step};
use super::layout::{Layout, LayoutInput, layout};
use super::picture::{Edge, INPUT, OUTPUT, edges, notes};
use crate::output::one_line;
use std::collections::HashMap;
use std::fmt::Write as _;

const END_HEIGHT: f64 = 30.0;
const STEP_HEIGHT: f64 = 64.0;
const WIDTH_MIN: f64 = 120.0;

/// The width of a character of the names, about.
const CHARACTER: f64 = 7.4;

/// Characters of a name that are shown.
const NAME_CHARS: usize = 30;
const LABEL_CHARS: usize = 18;

pub fn svg(graph: &Graph) -> String {
    let edges = edges(graph);
    // The input, the steps and the output.
    let last = graph.steps.len() + 1;
    let mut index: HashMap<&str, usize> = HashMap::from([(INPUT, 0), (OUTPUT, last)]);
    index.extend(graph.steps.iter().enumerate().map(|(at, step)| (&*step.name, at + 1)));
    let steps = graph.steps.iter().map(|step| (width(step), STEP_HEIGHT));
    let end = (64.0, END_HEIGHT);
    let sizes: Vec<(f64, f64)> = std::iter::once(end).chain(steps).chain([end]).collect();
    let known = |edge: &Edge| Some((*index.get(&*edge.from)?, *index.get(&*edge.to)?));
    let (edges, lines): (Vec<&Edge>, Vec<(usize, usize)>) =
        edges.iter().filter_map(|edge| Some((edge, known(edge)?))).unzip();
    let Layout { corners, lines, width, height } =
        layout(&LayoutInput { sizes: &sizes, edges: &lines, last });
    let name = escaped(&graph.name);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"graph\" role=\"img\" aria-label=\"Pipeline {name}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n"
    );
    edges.iter().zip(&lines).for_each(|(edge, line)| draw_edge(&mut svg, edge, line));
    draw_end(&mut svg, "input", corners[0]);
    for (at, step) in graph.steps.iter().enumerate() {
        draw_step(&mut svg, step, corners[at + 1], sizes[at + 1].0);
    }
    draw_end(&mut svg, "output", corners[last]);
    svg.push_str("</svg>\n");
    svg
}

fn model(step: &Step) -> String {
    let version = step.version.as_ref().map_or_else(String::new, |version| format!(":{version}"));
    format!("{}{version}", step.model)
}

fn width(step: &Step) -> f64 {
    let longest = step.name.chars().count().max(model(step).chars().count()).min(NAME_CHARS);
    (longest as f64 * CHARACTER + 24.0).max(WIDTH_MIN)
}

fn draw_end(svg: &mut String, name: &str, (x, y): (f64, f64)) {
    let (middle, base) = (x + 32.0, y + END_HEIGHT / 2.0 + 4.0);
    let _ = writeln!(
        svg,
        "<g class=\"end\"><rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"64\" height=\"{END_HEIGHT}\" rx=\"15\" \
         fill=\"#eeeeee\" stroke=\"#777777\"/><text class=\"name\" x=\"{middle:.1}\" y=\"{base:.1}\" \
         text-anchor=\"middle\" fill=\"#222222\">{name}</text></g>"
    );
}

fn draw_step(svg: &mut String, step: &Step, (x, y): (f64, f64), width: f64) {
    let class = if step.choose.is_some() { "step choice" } else { "step" };
    let title: Vec<String> =
        std::iter::once(format!("{}: {}", step.name, model(step))).chain(notes(step)).collect();
    let (name, title) = (escaped(&step.name), escaped(&title.join("; ")));
    let _ = write!(
        svg,
        "<g class=\"{class}\" data-step=\"{name}\" tabindex=\"0\"><title>{title}</title><rect class=\"box\" x=\"{x:.1}\" \
         y=\"{y:.1}\" width=\"{width:.1}\" height=\"{STEP_HEIGHT}\" rx=\"6\" fill=\"#ffffff\" stroke=\"#555555\"{}/>",
        if step.choose.is_some() { " stroke-dasharray=\"5 3\"" } else { "" }
    );
    let x = x + 12.0;
    for (class, y, text) in [
        ("name", y + 21.0, cut(&step.name, NAME_CHARS)),
        ("model", y + 38.0, cut(&model(step), NAME_CHARS)),
        ("count", y + 55.0, String::new()),
    ] {
        let look = match class {
            "name" => "font-weight=\"600\" fill=\"#111111\"",
            _ => "font-size=\"11\" fill=\"#444444\"",
        };
        let _ =
            write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" {look}>{}</text>", escaped(&text));
    }
    svg.push_str("</g>\n");
}

fn draw_edge(svg: &mut String, edge: &Edge, line: &[(f64, f64)]) {
    let [(x, y), rest @ ..] = line else { return };
    let (mut path, mut from) = (format!("M{x:.1} {y:.1}"), (*x, *y));
    for &to in rest {
        if to.1 == from.1 {
            let _ = write!(path, "L{:.1} {:.1}", to.0, to.1);
        } else {
            let middle = f64::midpoint(from.0, to.0);
            let _ =
                write!(path, "C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}", from.1, to.1, to.0, to.1);
        }
        from = to;
    }
    let (class, dashes) = match edge.is_choice {
        true => ("edge conditional", " stroke-dasharray=\"4 3\""),
        false => ("edge", ""),
    };
    let (from_name, to_name) = (escaped(&edge.from), escaped(&edge.to));
    let _ = writeln!(
        svg,
        "<path class=\"{class}\" d=\"{path}\" fill=\"none\" stroke=\"#777777\"{dashes}><title>{from_name} to {to_name}: \
         {}</title></path><path class=\"arrow\" d=\"M{:.1} {:.1}l-7 -4v8z\" fill=\"#777777\"/>",
        escaped(&edge.label),
        from.0,
        from.1
    );
    if let ([start, end, ..], false) = (line, edge.label.is_empty()) {
        let (x, y) = (f64::midpoint(start.0, end.0), f64::midpoint(start.1, end.1) - 4.0);
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" font-size=\"10\" \
             fill=\"#444444\">{}</text>",
            escaped(&cut(&edge.label, LABEL_CHARS))
        );
    }
}

fn cut(text: &str, chars: usize) -> String {
    match text.chars().count() > chars {
        true => text.chars().take(chars - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Escapes a text for an element or an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in XML, even escaped.
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
