//! What a person has entered: the fields of a form, and what is wrong with them.

use gpu_layer_norm::Error;
use wasm_bindgen::prelude::*;
use web_sys::FormData;

/// What is wrong with a field, in words that say what would have been right.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The name of the field; empty if no single field is to blame.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    /// A refusal of what this field says.
    pub(super) fn at(field: &str, message: impl ToString) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }

    /// The crate's own error, at the field that it is about.
    pub(super) fn of(error: Error) -> Self {
        let field = match &error {
            Error::Rank { .. } | Error::Size { .. } | Error::BufferSize { .. } => "shape",
            Error::NormalizedShape { .. }
            | Error::ShapeMismatch { .. }
            | Error::Width { .. }
            | Error::RowSize { .. } => "normalized_shape",
            Error::Eps { .. } => "eps",
            Error::UnbiasedWidth { .. } | Error::RmsNorm { .. } => "variance",
            Error::ValueCount { .. } => "values",
            Error::RowsPerCondition { .. } => "rows_per_condition",
            Error::SequenceLength { .. } => "causal",
            _ => "",
        };
        Self::at(field, error)
    }
}

/// The refusals of a form's fields, gathered so that all of them are shown at once.
#[derive(Default)]
pub(super) struct Refusals(Vec<Refusal>);

impl Refusals {
    /// The value, or `None` and one refusal more.
    pub(super) fn gather<T>(&mut self, value: Result<T, Refusal>) -> Option<T> {
        value.map_err(|refusal| self.0.push(refusal)).ok()
    }

    /// The refusals.
    pub(super) fn into_vec(self) -> Vec<Refusal> {
        self.0
    }
}

/// Gives the text of a field by its name; nothing if there is no such field, or it is a box that is not ticked.
type Lookup = Box<dyn Fn(&str) -> Option<String>>;

/// The fields of a form.
pub(super) struct Form(Lookup);

impl From<FormData> for Form {
    fn from(data: FormData) -> Self {
        Self(Box::new(move |name| data.get(name).as_string()))
    }
}

impl Form {
    /// The text of a field; empty if there is no such field.
    pub(super) fn text(&self, name: &str) -> String {
        (self.0)(name).unwrap_or_default().trim().to_string()
    }

    /// Whether a box is ticked.
    pub(super) fn is_ticked(&self, name: &str) -> bool {
        (self.0)(name).is_some()
    }

    /// A list of whole numbers, with anything between them that people put between dimensions. Nothing is a list of none.
    pub(super) fn dimensions(&self, name: &str) -> Result<Vec<usize>, Refusal> {
        let parse = |word: &str| {
            word.parse().map_err(|_| {
                let max = usize::MAX;
                Refusal::at(name, format!("\"{word}\" is no dimension; write whole numbers up to {max}, such as 2, 3"))
            })
        };
        let is_between = |c: char| c.is_whitespace() || ",;×x*[]()".contains(c);
        self.text(name).split(is_between).filter(|word| !word.is_empty()).map(parse).collect()
    }

    /// A list of numbers, NaN and infinities among them.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f32>, Refusal> {
        let parse = |word: &str| {
            word.parse()
                .map_err(|_| Refusal::at(name, format!("\"{word}\" is no number; write such as 1, -2.5, 3e8, NaN")))
        };
        let is_between = |c: char| c.is_whitespace() || ",;[]()".contains(c);
        self.text(name).split(is_between).filter(|word| !word.is_empty()).map(parse).collect()
    }

    /// A number as f32.
    pub(super) fn f32(&self, name: &str) -> Result<f32, Refusal> {
        let text = self.text(name);
        text.parse().map_err(|_| Refusal::at(name, format!("\"{text}\" is no number; write one such as 1e-5")))
    }

    /// A finite number.
    pub(super) fn finite(&self, name: &str) -> Result<f64, Refusal> {
        let text = self.text(name);
        let refused = || Refusal::at(name, format!("\"{text}\" is no finite number; write one such as 1e6 or -0.5"));
        text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(refused)
    }

    /// A whole number.
    pub(super) fn count(&self, name: &str) -> Result<u64, Refusal> {
        let text = self.text(name);
        text.parse().map_err(|_| Refusal::at(name, format!("\"{text}\" is no whole number; write one such as 7")))
    }

    /// One of these.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, Refusal> {
        let text = self.text(name);
        let found = choices.iter().find(|(choice, _)| *choice == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            Refusal::at(name, format!("\"{text}\" is none of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&'static str, &'static str); N]> for Form {
    fn from(fields: [(&'static str, &'static str); N]) -> Self {
        Self(Box::new(move |name| {
            let found = fields.iter().rev().find(|(field, _)| *field == name);
            found.map(|(_, text)| (*text).to_string())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_read_however_people_write_them() {
        for text in ["2,3", "[2, 3]", "(2 3)", "2×3", "2 x 3", " 2 ,\n3, "] {
            assert_eq!(Form::from([("shape", text)]).dimensions("shape"), Ok(vec![2, 3]), "{text}");
        }
        assert_eq!(Form::from([("shape", "")]).dimensions("shape"), Ok(vec![]));
        for text in ["-2", "2.5", "two", "99999999999999999999999", "1e3"] {
            let refusal = Form::from([("shape", text)]).dimensions("shape").unwrap_err();
            assert!(refusal.field == "shape" && refusal.message.contains(text), "{refusal:?}");
        }
    }

    #[test]
    fn numbers_may_be_none_that_are_finite_and_means_may_not() {
        let form = Form::from([("values", "[1, -2.5]\n3e8 NaN inf"), ("mean", "inf"), ("eps", "NaN")]);
        let values = form.numbers("values").unwrap();
        assert_eq!(values[..3], [1.0, -2.5, 3e8]);
        assert!(values[3].is_nan() && values[4] == f32::INFINITY);
        assert!(form.finite("mean").is_err());
        assert!(form.f32("eps").unwrap().is_nan());
        assert!(form.f32("values").is_err() && form.f32("absent").is_err());
    }
}
