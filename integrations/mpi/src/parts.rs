//! How a shard that is wider than a kernel may take is cut.

use std::ops::Range;

use gpu_layer_norm::GpuDevice;
use gpu_layer_norm::kernel::MAX_WIDTH;

/// Parts begin at multiples of so many elements, so that they are read as fast as the whole.
const ALIGNMENT: u64 = 64;

/// The widest part that this device takes in every pass. The gradients of weight and bias need up to 16 bytes of scratch a column.
pub(crate) fn widest(device: &GpuDevice) -> u64 {
    (device.capabilities().max_binding_bytes / 16).clamp(1, MAX_WIDTH)
}

/// Parts of a shard, none wider than `widest` and all about as wide.
pub(crate) fn cut(width: u64, widest: u64) -> Vec<Range<u64>> {
    let widest = widest.max(1);
    let part = if width <= widest {
        width
    } else {
        let even = width.div_ceil(width.div_ceil(widest));
        let aligned = even.next_multiple_of(ALIGNMENT);
        match widest / ALIGNMENT * ALIGNMENT {
            _ if aligned <= widest => aligned,
            0 => even,
            most => most,
        }
    };
    let mut parts = Vec::new();
    let mut first = 0;
    while first < width {
        let end = width.min(first + part);
        parts.push(first..end);
        first = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn parts_cover_a_shard_once_and_none_is_too_wide() {
        for width in [0, 1, 2, 63, 64, 65, 100, 1000, 4096, 12_345, 1 << 26] {
            for widest in [1, 2, 63, 64, 65, 100, 1 << 23, 1 << 24] {
                if width / widest > 100_000 {
                    continue;
                }
                let parts = cut(width, widest);
                let mut end = 0;
                for part in &parts {
                    assert_eq!(part.start, end, "{width} {widest}");
                    assert!(part.end > part.start && part.end - part.start <= widest, "{width} {widest} {part:?}");
                    end = part.end;
                }
                assert_eq!(end, width, "{width} {widest}");
            }
        }
    }

    #[test]
    fn parts_are_even_and_aligned() {
        assert_eq!(cut(1 << 26, 1 << 24).len(), 4);
        assert_eq!(cut(200, 100), [0..64, 64..128, 128..192, 192..200]);
        assert_eq!(cut(100, 100).len(), 1);
        assert_eq!(cut(200, 150), [0..128, 128..200]);
        assert!(cut(1_000_003, 300_000).iter().all(|part| part.start.is_multiple_of(64)));
    }
}
