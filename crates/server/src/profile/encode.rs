//! [`Samples`] as pprof's protobuf: texts, functions and places are listed once and numbered.

use std::collections::HashMap;
use std::io::Write;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use retcd_proto::profilepb as pb;

use super::symbols::{Symbol, mappings, symbols_at};
use super::{Frame, Samples, ValueType};

pub(super) fn encode(samples: &Samples) -> Vec<u8> {
    let profile = Builder::new().build(samples);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&profile.encode_to_vec())
        .and_then(|()| gzip.finish())
        .expect("writing to memory does not fail")
}

/// A profile and what it has already.
struct Builder {
    profile: pb::Profile,
    texts: HashMap<String, i64>,
    locations: HashMap<Frame, u64>,
    functions: HashMap<(i64, i64), u64>,
}

impl Builder {
    fn new() -> Builder {
        let mut builder = Builder {
            profile: pb::Profile::default(),
            texts: HashMap::new(),
            locations: HashMap::new(),
            functions: HashMap::new(),
        };
        builder.text("");
        builder
    }

    fn build(mut self, samples: &Samples) -> pb::Profile {
        for mapping in mappings() {
            let filename = self.text(&mapping.file);
            self.profile.mapping.push(pb::Mapping {
                id: self.profile.mapping.len() as u64 + 1,
                memory_start: mapping.start,
                memory_limit: mapping.limit,
                file_offset: mapping.offset,
                filename,
                // So pprof does not look for the program's file.
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
                ..Default::default()
            });
        }
        for kind in samples.types {
            let kind = self.value_type(*kind);
            self.profile.sample_type.push(kind);
        }
        let (kind, period) = samples.period;
        self.profile.period_type = Some(self.value_type(kind));
        self.profile.period = period;
        self.profile.default_sample_type = self.text(samples.shown);
        let since_epoch = samples.taken_at.duration_since(UNIX_EPOCH);
        self.profile.time_nanos = since_epoch.map_or(0, |time| time.as_nanos() as i64);
        self.profile.duration_nanos = samples.duration.as_nanos() as i64;
        for (stack, values) in samples.sorted() {
            let location_id = stack.iter().map(|frame| self.location(frame)).collect();
            self.profile.sample.push(pb::Sample {
                location_id,
                value: values.clone(),
                label: Vec::new(),
            });
        }
        self.profile
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, (kind, unit): ValueType) -> pb::ValueType {
        pb::ValueType {
            r#type: self.text(kind),
            unit: self.text(unit),
        }
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        if let Some(id) = self.locations.get(frame) {
            return *id;
        }
        let (address, symbols) = match frame {
            Frame::Address(address) => (*address, symbols_at(*address)),
            Frame::Name(name) => (0, vec![named(name.clone())]),
        };
        let line = symbols.iter().map(|symbol| self.line(symbol)).collect();
        let holds = |mapping: &&pb::Mapping| {
            (mapping.memory_start..mapping.memory_limit).contains(&address)
        };
        let mapping = self.profile.mapping.iter().find(holds);
        let location = pb::Location {
            id: self.profile.location.len() as u64 + 1,
            mapping_id: mapping.map_or(0, |mapping| mapping.id),
            address,
            line,
            is_folded: false,
        };
        let id = location.id;
        self.profile.location.push(location);
        self.locations.insert(frame.clone(), id);
        id
    }

    fn line(&mut self, symbol: &Symbol) -> pb::Line {
        let (name, filename) = (self.text(&symbol.name), self.text(&symbol.file));
        let next = self.profile.function.len() as u64 + 1;
        let function_id = *self.functions.entry((name, filename)).or_insert(next);
        if function_id == next {
            self.profile.function.push(pb::Function {
                id: next,
                name,
                system_name: name,
                filename,
                start_line: 0,
            });
        }
        pb::Line {
            function_id,
            line: symbol.line.into(),
        }
    }
}

fn named(name: String) -> Symbol {
    Symbol {
        name,
        file: String::new(),
        line: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `go tool pprof` refuses a profile whose numbers lead nowhere.
    #[test]
    fn every_number_leads_somewhere() {
        let here = every_number_leads_somewhere as *const () as u64;
        let mut samples = Samples::new(
            "cpu",
            &[("samples", "count"), ("cpu", "nanoseconds")],
            (("cpu", "nanoseconds"), 10),
        );
        let (place, name) = (Frame::Address(here), Frame::Name("conn-0".to_owned()));
        samples.add(vec![place.clone(), name.clone()], &[1, 10]);
        samples.add(vec![place.clone(), name], &[2, 20]);
        samples.add(vec![place], &[7, 70]);
        let profile = Builder::new().build(&samples);

        let text = |number: i64| profile.string_table[number as usize].as_str();
        let values: Vec<_> = profile.sample.iter().map(|sample| &sample.value).collect();
        assert_eq!(values, [&vec![7, 70], &vec![3, 30]], "the greatest first");
        let kinds = profile.sample_type.iter().chain(&profile.period_type);
        let kinds: Vec<_> = kinds
            .map(|kind| (text(kind.r#type), text(kind.unit)))
            .collect();
        let cpu = ("cpu", "nanoseconds");
        assert_eq!(kinds, [("samples", "count"), cpu, cpu]);
        assert_eq!(profile.location.len(), 2, "each place is listed once");
        for sample in &profile.sample {
            for id in &sample.location_id {
                let location = &profile.location[*id as usize - 1];
                assert_eq!(location.id, *id);
                assert!(!location.line.is_empty(), "{location:?}");
                for line in &location.line {
                    let function = &profile.function[line.function_id as usize - 1];
                    assert_eq!(function.id, line.function_id);
                    assert!(!text(function.name).is_empty());
                }
            }
        }
        let here = &profile.location[profile.sample[0].location_id[0] as usize - 1];
        assert!(here.mapping_id > 0, "{here:?}");
        assert_eq!(profile.string_table[0], "");
    }
}
