//! Places the nodes of a graph in columns, from left to right, so that edges are short and cross
//! rarely.
//!
//! The method is that of Sugiyama: the column of a node is the longest path that leads to it, an
//! edge over several columns has a bend in each of them, the order within a column follows that of
//! its neighbours, and nodes then move towards their neighbours as far as the order permits.

/// A graph to place. Nodes have the indices of their sizes.
pub(super) struct LayoutInput<'a> {
    /// Width and height of each node.
    pub sizes: &'a [(f64, f64)],
    /// From and to.
    pub edges: &'a [(usize, usize)],
    /// A node that stands behind all others.
    pub last: usize,
}

/// Where everything is.
pub(super) struct Layout {
    /// The upper left corner of each node.
    pub corners: Vec<(f64, f64)>,
    /// The points of each edge, from the right side of a node to the left side of another.
    pub lines: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

const MARGIN: f64 = 12.0;
const COLUMN_GAP: f64 = 72.0;
const ROW_GAP: f64 = 16.0;
/// The height of a bend.
const BEND_HEIGHT: f64 = 8.0;
/// With more bends than that, long edges have none.
const BENDS_MAX: usize = 5000;
const SWEEPS: usize = 8;

/// A node or a bend of an edge, in its column.
struct Vertex {
    height: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

pub(super) fn layout(input: &LayoutInput<'_>) -> Layout {
    let ranks = ranks(input);
    let mut vertices: Vec<Vertex> = Vec::new();
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); ranks.iter().max().map_or(1, |last| last + 1)];
    for (node, (_, height)) in input.sizes.iter().enumerate() {
        columns[ranks[node]].push(node);
        vertices.push(Vertex { height: *height, before: Vec::new(), after: Vec::new() });
    }
    let paths = bend(input, &ranks, &mut vertices, &mut columns);
    sort(&vertices, &mut columns);
    let centers = center(&vertices, &columns);
    draw(input, &ranks, &vertices, &columns, &centers, &paths)
}

/// Returns the column of each node. The ranks of a cycle stop growing at the number of nodes.
fn ranks(input: &LayoutInput<'_>) -> Vec<usize> {
    let nodes = input.sizes.len();
    let mut ranks = vec![0; nodes];
    // A path has at most as many edges as there are nodes.
    for _ in 0..nodes {
        let mut is_settled = true;
        for &(from, to) in input.edges.iter().filter(|(from, to)| from != to) {
            if ranks[to] <= ranks[from] && ranks[from] + 1 < nodes {
                ranks[to] = ranks[from] + 1;
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    let furthest = (0..nodes).filter(|node| *node != input.last).map(|node| ranks[node]).max();
    ranks[input.last] = furthest.map_or(0, |furthest| furthest + 1);
    ranks
}

/// Adds bends to edges over several columns. Returns the vertices that each edge goes through.
fn bend(
    input: &LayoutInput<'_>,
    ranks: &[usize],
    vertices: &mut Vec<Vertex>,
    columns: &mut [Vec<usize>],
) -> Vec<Vec<usize>> {
    let bends: usize = input.edges.iter().map(|&(from, to)| ranks[to].saturating_sub(ranks[from] + 1)).sum();
    let mut paths = Vec::with_capacity(input.edges.len());
    for &(from, to) in input.edges {
        let mut path = vec![from];
        if bends <= BENDS_MAX {
            let between = columns.iter_mut().take(ranks[to]).skip(ranks[from] + 1);
            for column in between {
                path.push(vertices.len());
                column.push(vertices.len());
                vertices.push(Vertex { height: BEND_HEIGHT, before: Vec::new(), after: Vec::new() });
            }
        }
        path.push(to);
        for pair in path.windows(2) {
            vertices[pair[0]].after.push(pair[1]);
            vertices[pair[1]].before.push(pair[0]);
        }
        paths.push(path);
    }
    paths
}

/// Orders each column by the mean position of the neighbours in the column before it, and then
/// after it.
fn sort(vertices: &[Vertex], columns: &mut [Vec<usize>]) {
    let mut position = vec![0.0; vertices.len()];
    let note = |column: &[usize], position: &mut [f64]| {
        let middle = column.len() as f64 / 2.0;
        column.iter().enumerate().for_each(|(at, vertex)| position[*vertex] = at as f64 - middle);
    };
    columns.iter().for_each(|column| note(column, &mut position));
    for sweep in 0..SWEEPS {
        let is_forward = sweep % 2 == 0;
        for step in 0..columns.len() {
            let column = if is_forward { step } else { columns.len() - 1 - step };
            let mut keyed: Vec<(f64, usize)> = columns[column]
                .iter()
                .map(|&vertex| {
                    let near = if is_forward { &vertices[vertex].before } else { &vertices[vertex].after };
                    (mean(near, &position).unwrap_or(position[vertex]), vertex)
                })
                .collect();
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
            columns[column] = keyed.into_iter().map(|(_, vertex)| vertex).collect();
            note(&columns[column], &mut position);
        }
    }
}

fn mean(near: &[usize], values: &[f64]) -> Option<f64> {
    let sum: f64 = near.iter().map(|vertex| values[*vertex]).sum();
    (!near.is_empty()).then(|| sum / near.len() as f64)
}

/// Returns the vertical center of each vertex: near those of its neighbours, in order, and apart.
fn center(vertices: &[Vertex], columns: &[Vec<usize>]) -> Vec<f64> {
    let mut centers = vec![0.0; vertices.len()];
    for sweep in 0..=SWEEPS {
        let is_forward = sweep % 2 == 0;
        for step in 0..columns.len() {
            let column = &columns[if is_forward { step } else { columns.len() - 1 - step }];
            let wanted: Vec<f64> = column
                .iter()
                .map(|&vertex| {
                    let near = if is_forward { &vertices[vertex].before } else { &vertices[vertex].after };
                    mean(near, &centers).unwrap_or(centers[vertex])
                })
                .collect();
            for (vertex, center) in column.iter().zip(apart(column, vertices, &wanted)) {
                centers[*vertex] = center;
            }
        }
    }
    centers
}

/// Returns the centers that are nearest to the wanted ones, by the sum of squares, in this order
/// and with the gaps between them.
fn apart(column: &[usize], vertices: &[Vertex], wanted: &[f64]) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(column.len());
    let mut offset = 0.0;
    for (at, vertex) in column.iter().enumerate() {
        if at > 0 {
            offset += f64::midpoint(vertices[column[at - 1]].height, vertices[*vertex].height) + ROW_GAP;
        }
        offsets.push(offset);
    }
    // Neighbours that would overlap form a block, which stands at the mean of what they want.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(&offsets) {
        let mut block = (wanted - offset, 1);
        while let Some(before) = blocks.pop_if(|before| before.0 >= block.0) {
            let members = before.1 + block.1;
            block = ((before.0 * before.1 as f64 + block.0 * block.1 as f64) / members as f64, members);
        }
        blocks.push(block);
    }
    let starts = blocks.iter().flat_map(|&(start, members)| std::iter::repeat_n(start, members));
    starts.zip(offsets).map(|(start, offset)| start + offset).collect()
}

fn draw(
    input: &LayoutInput<'_>,
    ranks: &[usize],
    vertices: &[Vertex],
    columns: &[Vec<usize>],
    centers: &[f64],
    paths: &[Vec<usize>],
) -> Layout {
    let top = |vertex: usize| centers[vertex] - vertices[vertex].height / 2.0;
    let highest = (0..vertices.len()).map(top).fold(f64::INFINITY, f64::min);
    let shift = MARGIN - if highest.is_finite() { highest } else { 0.0 };
    let lowest = (0..vertices.len()).map(|vertex| top(vertex) + vertices[vertex].height).fold(0.0, f64::max);
    let nodes = input.sizes.len();
    let width_of = |vertex: usize| if vertex < nodes { input.sizes[vertex].0 } else { 0.0 };
    let (mut starts, mut widths, mut x) = (Vec::new(), Vec::new(), MARGIN);
    for column in columns {
        let width = column.iter().map(|vertex| width_of(*vertex)).fold(0.0, f64::max);
        starts.push(x);
        widths.push(width);
        x += width + COLUMN_GAP;
    }
    let corner = |node: usize| {
        let rank = ranks[node];
        (starts[rank] + (widths[rank] - width_of(node)) / 2.0, top(node) + shift)
    };
    let mut column_of = vec![0; vertices.len()];
    for (number, column) in columns.iter().enumerate() {
        column.iter().for_each(|vertex| column_of[*vertex] = number);
    }
    let line = |path: &Vec<usize>| {
        let last = path.len() - 1;
        let mut points = Vec::with_capacity(2 * path.len());
        for (at, vertex) in path.iter().enumerate() {
            let (y, column) = (centers[*vertex] + shift, column_of[*vertex]);
            if at == 0 {
                points.push((corner(*vertex).0 + width_of(*vertex), y));
            } else if at == last {
                points.push((corner(*vertex).0, y));
            } else {
                points.extend([(starts[column], y), (starts[column] + widths[column], y)]);
            }
        }
        points
    };
    Layout {
        corners: (0..nodes).map(corner).collect(),
        lines: paths.iter().map(line).collect(),
        width: x - COLUMN_GAP + MARGIN,
        height: lowest + shift + MARGIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(nodes: usize, edges: &[(usize, usize)]) -> Layout {
        let sizes = vec![(100.0, 40.0); nodes];
        layout(&LayoutInput { sizes: &sizes, edges, last: nodes - 1 })
    }

    /// Checks that no two nodes overlap and that all are inside.
    fn check(layout: &Layout) {
        for (at, one) in layout.corners.iter().enumerate() {
            assert!(one.0 >= 0.0 && one.1 >= 0.0, "{one:?}");
            assert!(one.0 + 100.0 <= layout.width && one.1 + 40.0 <= layout.height, "{one:?}");
            for other in &layout.corners[at + 1..] {
                let apart = (one.0 - other.0).abs() >= 100.0 || (one.1 - other.1).abs() >= 40.0;
                assert!(apart, "{one:?} {other:?}");
            }
        }
        let points = layout.lines.iter().flatten();
        assert!(points.clone().all(|(x, y)| x.is_finite() && y.is_finite()));
    }

    #[test]
    fn a_chain_is_a_straight_line() {
        let layout = placed(4, &[(0, 1), (1, 2), (2, 3)]);
        check(&layout);
        let heights: Vec<f64> = layout.corners.iter().map(|corner| corner.1).collect();
        assert_eq!(heights, [heights[0]; 4]);
        assert!(layout.corners.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn branches_stand_beside_each_other_and_do_not_cross() {
        // Two branches whose steps are given in the other order in the second column.
        let layout = placed(6, &[(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5), (0, 5)]);
        check(&layout);
        let y = |node: usize| layout.corners[node].1;
        assert_eq!(y(1) < y(2), y(4) < y(3), "{:?}", layout.corners);
        assert_eq!(layout.lines[6].len(), 2 + 2 * 2, "two bends");
    }

    #[test]
    fn cycles_and_many_edges_are_survived() {
        check(&placed(3, &[(0, 1), (1, 0), (1, 1), (1, 2)]));
        check(&placed(1, &[]));
        let dense: Vec<(usize, usize)> =
            (0..120).flat_map(|from| (from + 1..120).map(move |to| (from, to))).collect();
        check(&placed(120, &dense));
        let wide: Vec<(usize, usize)> = (1..199).flat_map(|step| [(0, step), (step, 199)]).collect();
        check(&placed(200, &wide));
    }
}
