//! The dependencies between the steps of a graph, and an order that respects them.

use super::definition::Graph;
use super::fault::Fault;
use std::collections::BTreeSet;

/// The dependencies between steps, by index.
pub(super) struct Wiring {
    /// Every step comes after the steps that it waits for.
    pub order: Vec<usize>,
    /// By step, the steps that it waits for.
    pub waits_for: Vec<BTreeSet<usize>>,
    /// By step, the routers that may choose it.
    pub chosen_by: Vec<Vec<usize>>,
    /// By step, whether an output or a step with `always` needs it.
    pub is_needed: Vec<bool>,
}

/// Returns, by step, whether `roots` need it. Includes the roots.
pub(super) fn closure(waits_for: &[BTreeSet<usize>], roots: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut needed = vec![false; waits_for.len()];
    let mut open: Vec<usize> = roots.collect();
    while let Some(step) = open.pop() {
        if !std::mem::replace(&mut needed[step], true) {
            open.extend(&waits_for[step]);
        }
    }
    needed
}

/// Returns an order in which every step comes after those that it waits for. The fault names a
/// cycle.
pub(super) fn sorted(graph: &Graph, waits_for: &[BTreeSet<usize>]) -> Result<Vec<usize>, Fault> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; waits_for.len()];
    let mut order = Vec::with_capacity(waits_for.len());
    for root in 0..waits_for.len() {
        // Not recursive: a path may be as long as the graph has steps.
        let mut path = vec![(root, waits_for[root].iter())];
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        while let Some((step, before)) = path.last_mut() {
            match before.next().copied() {
                None => {
                    marks[*step] = Mark::Done;
                    order.push(*step);
                    path.pop();
                }
                Some(next) if marks[next] == Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, waits_for[next].iter()));
                }
                Some(next) if marks[next] == Mark::Open => {
                    let start = path.iter().position(|(step, _)| *step == next).unwrap_or(0);
                    let circle = path[start..].iter().map(|(step, _)| *step).chain([next]);
                    // Reversed, so that the names are in the direction of the data.
                    let mut names: Vec<&str> = circle.map(|step| &*graph.steps[step].name).collect();
                    names.reverse();
                    let place = format!("steps.{}", names[0]);
                    let message = format!("the steps wait for each other: {}", names.join(" -> "));
                    return Err(Fault::new(place, message).hint("to run a step again, give it a loop"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(order)
}
