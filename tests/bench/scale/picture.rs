//! The curves as one SVG: a row a size, a column a figure, every axis from zero.

use std::fmt::Write as _;

use super::{Curve, Point};

const WIDTH: f64 = 900.0;
const HEAD: f64 = 34.0;
const ROW: f64 = 128.0;

/// Where columns begin, how wide and how high a plot is.
const FIRST: f64 = 168.0;
const COLUMN: f64 = 245.0;
const PLOT: (f64, f64) = (205.0, 62.0);

/// Text and lines in both colour schemes.
const STYLE: &str = "\
    svg { font: 12px system-ui, sans-serif; fill: #1f2328; } .ground { fill: #fff; }
    .head { font-weight: 600; } .faint { fill: #59636e; } .mid { text-anchor: middle; }
    .axis { stroke: #d1d9e0; } .line { stroke: #0969da; stroke-width: 2; fill: none; }
    .dot { fill: #0969da; }
    @media (prefers-color-scheme: dark) {
      svg { fill: #f0f6fc; } .ground { fill: #0d1117; }
      .faint { fill: #9198a1; } .axis { stroke: #3d444d; }
      .line { stroke: #4493f8; } .dot { fill: #4493f8; }
    }";

/// A figure of a point.
type Figure = fn(&Point) -> f64;

const FIGURES: [(&str, Figure); 3] = [
    ("memory, MiB", |point| point.memory),
    ("start to ready, ms", |point| point.start_ms),
    ("throughput", |point| point.rate),
];

pub(super) fn draw(curves: &[Curve]) -> String {
    let height = HEAD + ROW * curves.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Memory, start and throughput of Tidegate by the size of what it holds</title>\n\
         <style>\n{STYLE}\n</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    for (column, (name, _)) in FIGURES.iter().enumerate() {
        text(&mut svg, (FIRST + COLUMN * column as f64, 22.0), "head", name);
    }
    for (row, curve) in curves.iter().enumerate() {
        let top = HEAD + ROW * row as f64;
        text(&mut svg, (16.0, top + 50.0), "head", curve.title);
        text(&mut svg, (16.0, top + 67.0), "faint", curve.unit);
        for (column, (_, figure)) in FIGURES.iter().enumerate() {
            let corner = (FIRST + COLUMN * column as f64, top + 24.0);
            plot(&mut svg, corner, &curve.points, *figure);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// One figure along one curve; `corner` is the upper left one.
fn plot(svg: &mut String, corner: (f64, f64), points: &[Point], figure: Figure) {
    let (left, top) = corner;
    let bottom = top + PLOT.1;
    let most = points.iter().map(figure).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{left:.0} {bottom:.0}h{:.0}\"/>", PLOT.0);
    // Sizes are powers of ten apart, and so are points.
    let step = PLOT.0 / points.len() as f64;
    let place = |(n, point): (usize, &Point)| {
        (left + step * (n as f64 + 0.5), bottom - PLOT.1 * figure(point) / most)
    };
    let places: Vec<(f64, f64)> = points.iter().enumerate().map(place).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", path.join(" "));
    for (point, (x, y)) in points.iter().zip(places) {
        let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
        text(svg, (x, y - 8.0), "mid", &super::figure(figure(point)));
        text(svg, (x, bottom + 16.0), "mid faint", &point.label);
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}
