//! A picture of a tensor's values: rows from top to bottom, elements of a row from left to right.

use wasm_bindgen::Clamped;
use wasm_bindgen::prelude::*;

/// The most pixels in each direction; a pixel of a larger tensor is the mean of several elements.
const MAX_SIDE: usize = 256;

/// What is above the middle, what is below it, and what is no finite number: red, green and blue.
const ABOVE: [u8; 3] = [217, 93, 14];
const BELOW: [u8; 3] = [36, 104, 202];
const NO_NUMBER: [u8; 3] = [168, 0, 168];

/// Pixels that are the clearer the nearer a value is to the middle, and a colour for each side of it. On whatever background they
/// are shown, that is the colour of the middle.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone, Debug)]
pub struct HeatMap {
    pub width: u32,
    pub height: u32,
    /// Red, green, blue and opacity of each pixel, row by row.
    pub pixels: Clamped<Vec<u8>>,
    /// The value of a clear pixel.
    pub middle: f64,
    /// How far from the middle the value of an opaque pixel is.
    pub reach: f64,
}

impl HeatMap {
    /// A picture of rows of this width. `middle` is the value to show as clear; by default the mean of those that are finite.
    pub(super) fn new(values: &[f32], width: usize, middle: Option<f64>) -> Self {
        let height = values.len() / width;
        let bins = |size: usize| size.min(MAX_SIDE);
        let (columns, lines) = (bins(width), bins(height));
        // Sum and number of the finite elements of each pixel, and whether all are finite.
        let mut pixels = vec![(0.0, 0.0, true); columns * lines];
        for (i, &value) in values.iter().enumerate() {
            let (x, y) = (i % width * columns / width, i / width * lines / height);
            let (sum, count, is_finite) = &mut pixels[y * columns + x];
            if value.is_finite() {
                *sum += f64::from(value);
                *count += 1.0;
            }
            *is_finite &= value.is_finite();
        }
        let means = || pixels.iter().filter(|(_, count, _)| *count > 0.0).map(|(sum, count, _)| sum / count);
        let (sum, count) = pixels.iter().fold((0.0, 0.0), |(sum, count), pixel| (sum + pixel.0, count + pixel.1));
        let middle = middle.unwrap_or(if count > 0.0 { sum / count } else { 0.0 });
        let reach = means().fold(0.0, |reach: f64, mean| reach.max((mean - middle).abs()));
        let colour = |&(sum, count, is_finite): &(f64, f64, bool)| {
            let distance = sum / count - middle;
            let ([red, green, blue], part) = match is_finite {
                false => (NO_NUMBER, 1.0),
                // 0 / 0 where all values are the same.
                true if distance > 0.0 => (ABOVE, distance / reach),
                true => (BELOW, if reach > 0.0 { -distance / reach } else { 0.0 }),
            };
            [red, green, blue, (part * 255.0).round() as u8]
        };
        let pixels = Clamped(pixels.iter().flat_map(colour).collect());
        Self { width: columns as u32, height: lines as u32, pixels, middle, reach }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_tell_the_side_and_opacity_the_distance() {
        let map = HeatMap::new(&[-2.0, 0.0, 1.0, f32::NAN], 2, Some(0.0));
        assert_eq!((map.width, map.height, map.reach), (2, 2, 2.0));
        let pixels: Vec<_> = map.pixels.chunks(4).collect();
        assert_eq!((&pixels[0][..3], pixels[0][3]), (&BELOW[..], 255));
        assert_eq!(pixels[1][3], 0);
        assert_eq!((&pixels[2][..3], pixels[2][3]), (&ABOVE[..], 128));
        assert_eq!((&pixels[3][..3], pixels[3][3]), (&NO_NUMBER[..], 255));
    }

    #[test]
    fn any_tensor_has_a_picture() {
        let ramp: Vec<f32> = (0..65_536).map(|i| i as f32).collect();
        for (count, width) in [(65_536, 65_536), (65_536, 1), (65_536, 300), (0, 5), (7, 7)] {
            let count = count / width * width;
            let map = HeatMap::new(&ramp[..count], width, None);
            assert_eq!(map.pixels.len(), (map.width * map.height * 4) as usize);
            assert!(map.width <= 256 && map.height <= 256);
        }
        let constant = HeatMap::new(&[5.0; 6], 3, None);
        assert!(constant.pixels.chunks(4).all(|pixel| pixel[3] == 0));
    }
}
