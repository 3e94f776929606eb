//! Puts what the benchmarks measured side by side: JSON files of `layer_norm`, of `beside_burn`, of `torch_layer_norm.py`.
//!
//!     cargo bench --bench report -- [--markdown FILE] [--svg FILE] [--operation NAME] [--storage NAME] JSON…
//!
//! The table has a line for each shape and a column for each implementation: milliseconds, and in brackets the ratio to a copy
//! of the same bytes on the same device, in the same run. The chart shows that ratio by width, for tensors of full size. Where an
//! operation was measured beside another, as adaptive layer normalization is beside layer normalization, how many times as long as
//! it the operation takes is in the brackets too.
//! Results that the benchmark found to be wrong have no time.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

use plotters::prelude::*;
use serde_json::Value;

fn main() {
    if let Err(error) = run(lexopt::Parser::from_env()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

const USAGE: &str = "report [--markdown FILE] [--svg FILE] [--operation NAME] [--storage NAME] JSON…
puts the JSON files of the benchmarks side by side: a table, and a chart if asked for";

/// What one implementation did on one adapter.
struct Column {
    name: String,
    measured: Vec<Measured>,
}

#[derive(Clone)]
struct Measured {
    rows: u64,
    width: u64,
    milliseconds: f64,
    ratio: f64,
    /// The operation that ran in turn with this one, and how many times as long as it this one took.
    counterpart: Option<(String, f64)>,
    /// The result is so far off that its time says nothing.
    wrong: bool,
}

struct Options {
    markdown: Option<String>,
    svg: Option<String>,
    operation: String,
    storage: String,
    files: Vec<String>,
}

fn options(mut parser: lexopt::Parser) -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options =
        Options { markdown: None, svg: None, operation: "layer_norm".into(), storage: "f32".into(), files: Vec::new() };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("markdown") => options.markdown = Some(parser.value()?.string()?),
            Long("svg") => options.svg = Some(parser.value()?.string()?),
            Long("operation") => options.operation = parser.value()?.string()?,
            Long("storage") => options.storage = parser.value()?.string()?,
            // From `cargo bench`.
            Long("bench") => {}
            Value(file) => options.files.push(file.string()?),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn run(parser: lexopt::Parser) -> Result<(), Box<dyn Error>> {
    let Options { markdown, svg, operation, storage, files } = options(parser)?;
    if files.is_empty() {
        // As where `cargo bench` runs all benchmarks.
        println!("{USAGE}");
        return Ok(());
    }
    let mut reports = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        match serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))? {
            Value::Array(several) => reports.extend(several),
            one => reports.push(one),
        }
    }
    let columns: Vec<Column> = reports
        .iter()
        .map(|report| column(report, &operation, &storage))
        .filter(|it| !it.measured.is_empty())
        .collect();
    if columns.is_empty() {
        return Err(format!("there is nothing about {operation} of {storage} in {files:?}").into());
    }
    let table = table(&columns);
    match markdown {
        Some(file) => std::fs::write(&file, &table).map_err(|error| format!("{file}: {error}"))?,
        None => print!("{table}"),
    }
    if let Some(file) = svg {
        chart(&file, &format!("{operation}, {storage}: time as a multiple of a copy's"), &columns)
            .map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

fn column(report: &Value, operation: &str, storage: &str) -> Column {
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    let adapter = match report["driver"].as_str() {
        Some(driver) if !driver.is_empty() => format!("{} ({driver})", text("adapter")),
        _ => text("adapter"),
    };
    let results = report["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let measured = results
        .iter()
        .filter(|result| result["operation"] == operation && result["storage"] == storage)
        .filter_map(|result| {
            Some(Measured {
                rows: result["rows"].as_u64()?,
                width: result["width"].as_u64()?,
                milliseconds: result["milliseconds"].as_f64()?,
                ratio: result["ratio_to_copy"].as_f64()?,
                counterpart: result["counterpart"]
                    .as_str()
                    .map(String::from)
                    .zip(result["ratio_to_counterpart"].as_f64()),
                wrong: result["wrong"].as_bool().unwrap_or(false),
            })
        });
    Column { name: format!("{}, {adapter}, {}", text("implementation"), text("date")), measured: measured.collect() }
}

fn table(columns: &[Column]) -> String {
    let mut shapes = Vec::new();
    for measured in columns.iter().flat_map(|column| &column.measured) {
        let shape = (measured.rows, measured.width);
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    let mut table = String::from("| rows × width |");
    for column in columns {
        write!(table, " {} |", column.name).expect("a String takes any text");
    }
    table += &format!("\n|--:|{}\n", "--:|".repeat(columns.len()));
    for (rows, width) in shapes {
        write!(table, "| {rows} × {width} |").expect("a String takes any text");
        for column in columns {
            let found = column.measured.iter().find(|it| (it.rows, it.width) == (rows, width));
            match found {
                Some(it) if it.wrong => write!(table, " wrong |"),
                Some(Measured { milliseconds, ratio, counterpart: Some((name, to)), .. }) => {
                    write!(table, " {milliseconds:.3} ({ratio:.2}; {to:.2} × {name}) |")
                }
                Some(it) => write!(table, " {:.3} ({:.2}) |", it.milliseconds, it.ratio),
                None => write!(table, " – |"),
            }
            .expect("a String takes any text");
        }
        table.push('\n');
    }
    table
}

fn chart(file: &str, title: &str, columns: &[Column]) -> Result<(), Box<dyn Error>> {
    // Those of full size: the tensors of one column have one size but for the few-row shapes.
    let full = |column: &Column| {
        let largest = column.measured.iter().map(|it| it.rows * it.width).max().unwrap_or(0);
        let mut full: Vec<Measured> =
            column.measured.iter().filter(|it| it.rows * it.width > largest / 2 && !it.wrong).cloned().collect();
        full.sort_by_key(|it| it.width);
        // Of a few-row shape that is as large, only the first stays.
        full.dedup_by_key(|it| it.width);
        full
    };
    let lines: Vec<_> = columns.iter().map(|column| (&column.name, full(column))).collect();
    let widths: BTreeSet<u64> = lines.iter().flat_map(|(_, line)| line.iter().map(|it| it.width)).collect();
    let (first, last) = (widths.first().copied().unwrap_or(1), widths.last().copied().unwrap_or(2));
    let highest = lines.iter().flat_map(|(_, line)| line.iter().map(|it| it.ratio)).fold(1.0, f64::max);
    let root = SVGBackend::new(file, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d((first as f64..last as f64).log_scale(), (0.8..highest * 3.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("width")
        .x_label_formatter(&|width| format!("{width:.0}"))
        .y_label_formatter(&|ratio| format!("{ratio:.1}"))
        .label_style(("sans-serif", 13))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let copy = [(first as f64, 1.0), (last as f64, 1.0)];
    chart.draw_series(LineSeries::new(copy, BLACK.mix(0.5)))?.label("copy").legend(|at| legend(at, BLACK.mix(0.5)));
    for (i, (name, line)) in lines.iter().enumerate() {
        let colour = Palette99::pick(i).mix(1.0);
        let points: Vec<_> = line.iter().map(|it| (it.width as f64, it.ratio)).collect();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name.as_str())
            .legend(move |at| legend(at, colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

fn legend(at: (i32, i32), colour: RGBAColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![at, (at.0 + 16, at.1)], colour.stroke_width(2))
}
