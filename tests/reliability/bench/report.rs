//! The rows of a run, as a table.

use std::fmt;

use crate::world::Sizes;

/// The rows that were measured.
pub(crate) struct Report {
    sizes: String,
    rows: Vec<Row>,
}

/// One figure.
struct Row {
    work: String,
    unit: &'static str,
    figure: f64,
    limit: Option<(f64, &'static str)>,
    note: String,
}

impl Report {
    pub(crate) fn new(sizes: &Sizes) -> Self {
        Self { sizes: sizes.to_string(), rows: Vec::new() }
    }

    /// Adds a figure, and tells it at once to who waits.
    pub(crate) fn row(&mut self, work: impl Into<String>, figure: f64, unit: &'static str) {
        let (work, note) = (work.into(), String::new());
        eprintln!("{work}: {} {unit}", shown(figure));
        self.rows.push(Row { work, unit, figure, limit: None, note });
    }

    /// Adds the figure of a bare loop to the last row.
    pub(crate) fn limit(&mut self, limit: f64, what: &'static str) {
        if let Some(row) = self.rows.last_mut() {
            eprintln!("    {what}: {} {}", shown(limit), row.unit);
            row.limit = Some((limit, what));
        }
    }

    /// Adds a note to the last row.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        if let Some(row) = self.rows.last_mut() {
            row.note = note.into();
            eprintln!("    {}", row.note);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.sizes)?;
        writeln!(f, "| work | measured | limit | ratio | notes |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for Row { work, unit, figure, limit, note } in &self.rows {
            let (limit, ratio) = match limit {
                Some((limit, what)) => {
                    let ratio = shown(figure / limit.max(f64::MIN_POSITIVE));
                    (format!("{} {unit}: {what}", shown(*limit)), ratio)
                }
                None => (String::from("–"), String::from("–")),
            };
            writeln!(f, "| {work} | {} {unit} | {limit} | {ratio} | {note} |", shown(*figure))?;
        }
        Ok(())
    }
}

/// A number with about three digits that count.
pub(crate) fn shown(figure: f64) -> String {
    match figure.abs() {
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
