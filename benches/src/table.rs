//! What was measured, for a reader.

use std::fmt::{self, Display, Write};

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    path::Path,
    report::{Load, PathReport, Report, Section},
};

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "{}\n", section.title(self))?;
            writeln!(f, "{}\n", section.table())?;
            for path in section.paths.iter().filter(|path| path.errors > 0) {
                let first = path.first_error.as_deref().unwrap_or("unknown");
                writeln!(f, "{}: {} requests failed, the first because: {first}", path.path, path.errors)?;
            }
            f.write_str(&section.verdict())?;
        }
        Ok(())
    }
}

impl Section {
    fn title(&self, report: &Report) -> String {
        let settings = &report.settings;
        let load = match self.load {
            Load::Open { rate } => {
                format!(
                    "{rate} requests per second for {} s, latency from when they were due",
                    settings.seconds
                )
            }
            Load::Saturated => format!("as fast as answers come, in rounds of {} s", settings.seconds),
        };
        let protocol = match settings.protocol {
            crate::caller::Protocol::H1 => "HTTP/1.1",
            crate::caller::Protocol::H2 => "HTTP/2",
        };
        format!("{load}; {protocol}, {} connections, bodies of {} bytes", settings.connections, settings.body)
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "",
            "req/s",
            "errors",
            "p50 µs",
            "p99",
            "p99.9",
            "+p50 µs",
            "+p99",
            "+p99.9",
            "CPU µs/req",
            "user",
            "system",
            "RSS MiB idle",
            "after",
        ]);
        table.add_rows(self.paths.iter().map(row));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }

    /// The comparison with nginx in words; nothing if there is none.
    fn verdict(&self) -> String {
        let of = |wanted| self.paths.iter().find(|report| report.path == wanted);
        let mut words = String::new();
        if let (Load::Saturated, Some(ratio)) = (self.load, self.cpu_ratio_to_nginx) {
            let _ = write!(words, "The proxy spends {ratio:.2} times nginx's CPU per request");
            let rounds =
                of(Path::Proxy).and_then(|proxy| proxy.cpu_per_request.as_ref()).map(|cpu| cpu.rounds.len());
            let _ = write!(words, " (medians of {} rounds)", rounds.unwrap_or(0));
            if let Some(resident) = of(Path::Proxy).and_then(|proxy| proxy.resident_kib) {
                let _ = write!(words, "; idle it takes {:.1} MiB", mib(resident.idle));
            }
            words.push_str(".\n\n");
        }
        words
    }
}

fn row(report: &PathReport) -> Vec<String> {
    let micros = |value: f64| format!("{value:.0}");
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    let added = report.added.as_ref();
    let cpu = report.cpu_per_request.as_ref();
    let resident = report.resident_kib;
    vec![
        report.path.to_string(),
        format!("{:.0}", report.per_second),
        report.errors.to_string(),
        micros(report.latency.p50),
        micros(report.latency.p99),
        micros(report.latency.p999),
        or_dash(added.map(|added| micros(added.p50))),
        or_dash(added.map(|added| micros(added.p99))),
        or_dash(added.map(|added| micros(added.p999))),
        or_dash(cpu.map(|cpu| format!("{:.1}", cpu.total))),
        or_dash(cpu.map(|cpu| format!("{:.1}", cpu.user))),
        or_dash(cpu.map(|cpu| format!("{:.1}", cpu.system))),
        or_dash(resident.map(|resident| format!("{:.1}", mib(resident.idle)))),
        or_dash(resident.map(|resident| format!("{:.1}", mib(resident.after)))),
    ]
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
