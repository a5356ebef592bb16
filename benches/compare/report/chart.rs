//! The chart: for each workload the ratios of all contenders to overlayfs on a logarithmic
//! scale, with the spread of single rounds, as SVG.

use std::fmt::Write;

use crate::catalog::{self, Workload};
use crate::outcome::{BASE, Outcome, Ratio, key};

/// Sizes in the units of the drawing.
const LEFT: f64 = 132.0;
const ROW: f64 = 22.0;
const TOP: f64 = 30.0;

/// What is drawn.
pub(super) struct Chart<'a> {
    pub(super) outcome: &'a Outcome,
    pub(super) workloads: Vec<&'static Workload>,
    pub(super) pinned: bool,
    pub(super) width: f64,
    /// Colours of its own, for a picture that stands alone.
    pub(super) alone: bool,
}

/// The colour of a contender, by its place in the list.
pub(super) fn class(outcome: &Outcome, name: &str) -> usize {
    outcome.contenders.iter().position(|other| other == name).unwrap_or(0) % 9
}

/// Readable on white and on black.
const COLOURS: [&str; 9] = [
    "#8a8a8a", "#444444", "#d1242f", "#e8833a", "#2f7ed8", "#5db0e8", "#8a63d2", "#3a9d5d",
    "#b59b2a",
];

impl Chart<'_> {
    fn range(&self) -> (f64, f64) {
        let (mut least, mut most) = (0.5_f64, 2.0_f64);
        // The same scale for all groups, so that they can be compared.
        for (_, ratio, _) in self.outcome.workloads().flat_map(|workload| self.marks(workload)) {
            (least, most) = (least.min(ratio.least), most.max(ratio.most));
        }
        (least.max(0.02) / 1.1, most.min(100.0) * 1.1)
    }

    /// The contenders that have a ratio, and whether one of their rounds failed.
    fn marks(&self, workload: &Workload) -> Vec<(String, Ratio, bool)> {
        let key = key(workload.id, self.pinned);
        let others = self.outcome.contenders.iter().filter(|name| *name != BASE);
        let marks = others.filter_map(|name| {
            let ratio = self.outcome.ratio(&key, name)?;
            Some((name.clone(), ratio, self.outcome.fault(&key, name).is_some()))
        });
        marks.collect()
    }

    pub(super) fn svg(&self) -> String {
        let (least, most) = self.range();
        let height = TOP + ROW * self.workloads.len() as f64 + 12.0;
        let right = self.width - 12.0;
        let x = |ratio: f64| {
            let share = (ratio.clamp(least, most) / least).ln() / (most / least).ln();
            LEFT + share * (right - LEFT)
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" role=\"img\" \
             aria-label=\"cost relative to overlayfs\" class=\"chart\">",
            self.width
        );
        if self.alone {
            svg.push_str(&style());
            svg.push_str("<rect class=\"ground\" width=\"100%\" height=\"100%\"/>");
        }
        self.scale(&mut svg, &x, (least, most), height);
        for (row, workload) in self.workloads.iter().enumerate() {
            let y = TOP + ROW * (row as f64 + 0.5);
            add(
                &mut svg,
                format_args!(
                    "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                    LEFT - 8.0,
                    y + 4.0,
                    workload.id
                ),
            );
            if let Some(bar) = catalog::bar_of(workload.id).filter(|_| !self.pinned) {
                add(
                    &mut svg,
                    format_args!(
                        "<path class=\"bar\" d=\"M{0:.1} {1:.1}v{2:.1}\"><title>bar: at most {bar}</title></path>",
                        x(bar),
                        y - ROW * 0.45,
                        ROW * 0.9
                    ),
                );
            }
            for (name, ratio, failed) in self.marks(workload) {
                self.mark(&mut svg, &x, y, (&name, ratio, failed), workload.id);
            }
        }
        svg.push_str("</svg>");
        svg
    }

    fn mark(
        &self,
        svg: &mut String,
        x: &dyn Fn(f64) -> f64,
        y: f64,
        (name, ratio, failed): (&str, Ratio, bool),
        id: &str,
    ) {
        let class = class(self.outcome, name);
        // PlyFS is what the reader looks for.
        let radius = if name == "plyfs" { 5.5 } else { 3.5 };
        let hollow = if failed { " hollow" } else { "" };
        let spread = super::markdown::spread(ratio);
        let note = if failed { ", failed in a later round" } else { "" };
        add(
            svg,
            format_args!(
                "<g class=\"k{class}{hollow}\"><title>{name}: {id} {spread}{note}</title>\
             <path d=\"M{:.1} {y:.1}H{:.1}\"/><circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/></g>",
                x(ratio.least),
                x(ratio.most),
                x(ratio.median)
            ),
        );
    }

    fn scale(
        &self,
        svg: &mut String,
        x: &dyn Fn(f64) -> f64,
        (least, most): (f64, f64),
        height: f64,
    ) {
        let steps =
            [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
        // On a narrow drawing only every third step has room.
        let narrow = self.width < 500.0;
        for step in steps.into_iter().filter(|step| (least..most).contains(step)) {
            let decade = [0.01, 0.1, 1.0, 10.0, 100.0].contains(&step);
            let class = if step == 1.0 { "one" } else { "step" };
            add(
                svg,
                format_args!(
                    "<path class=\"{class}\" d=\"M{0:.1} {1}V{2}\"/>",
                    x(step),
                    TOP - 6.0,
                    height - 10.0
                ),
            );
            if decade || !narrow {
                add(
                    svg,
                    format_args!(
                        "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step}×</text>",
                        x(step),
                        TOP - 12.0
                    ),
                );
            }
        }
    }
}

fn add(svg: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    if svg.write_fmt(arguments).is_err() {
        eprintln!("no memory for a drawing");
    }
}

/// The style of a drawing, for light and dark.
pub(super) fn style() -> String {
    let mut rules = String::from(
        "<style>.chart text{font:12px system-ui,sans-serif;fill:#222}.chart .tick{fill:#777;font-size:11px}\
         .chart .ground{fill:#fff}.chart path{stroke-width:1.5;fill:none}.chart .step{stroke:#ddd;stroke-width:1}\
         .chart .one{stroke:#444;stroke-width:1.5}.chart .bar{stroke:#d1242f;stroke-width:2;stroke-dasharray:2 2}\
         .chart circle{stroke-width:1.5}",
    );
    for (n, colour) in COLOURS.iter().enumerate() {
        add(
            &mut rules,
            format_args!(
                ".k{n}{{stroke:{colour};fill:{colour};color:{colour}}}.k{n}.hollow circle{{fill:none}}"
            ),
        );
    }
    rules.push_str(
        "@media(prefers-color-scheme:dark){.chart text{fill:#ddd}.chart .ground{fill:#111}\
         .chart .step{stroke:#333}.chart .one{stroke:#bbb}.k1{stroke:#ccc;fill:#ccc;color:#ccc}}</style>",
    );
    rules
}
