use gpu_layer_norm::*;
fn rnd(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64).map(|i| { let mut z = (i ^ (seed<<32)).wrapping_add(0x9e3779b97f4a7c15); z = (z ^ (z>>30)).wrapping_mul(0xbf58476d1ce4e5b9); z = (z ^ (z>>27)).wrapping_mul(0x94d049bb133111eb); z ^= z>>31; ((z>>40) as f32 / (1u64<<24) as f32 - 0.5) * 3.0 }).collect()
}
#[test]
fn run() {
    let device = GpuDevice::new().unwrap();
    let mut worst = [0.0f64; 5];
    for (batch, length, width) in [(2usize, 5usize, 8usize), (1, 1, 64), (3, 70, 33), (2, 300, 16), (1, 130, 5000), (1, 20000, 4)] {
        for (what, mean, std, drift) in [("std", 0.0f32, 1.0f32, 0.0f32), ("1e6", 1e6, 1.0, 0.0), ("drift", 0.0, 1.0, 100.0), ("1e30", 0.0, 1e30, 0.0), ("1e-30", 0.0, 1e-30, 0.0), ("outlier", 0.0, 1.0, -1.0), ("jump", 0.0, 1.0, -2.0)] {
        for rms in [false, true] {
            for eps in [1e-5f32, 0.0] {
            for strategy in [None, Some(Strategy::Resident), Some(Strategy::Streaming), Some(Strategy::Split)] {
            let mut x: Vec<f32> = rnd(batch*length*width, 1).iter().enumerate().map(|(i, v)| mean + std*v + if drift > 0.0 { drift * ((i / width % length) as f32) } else {0.0}).collect();
            if drift == -1.0 { x[0] = 1e6; }
            if drift == -2.0 { for v in &mut x[..width] { *v = 1e20 * *v; } }
            let dy = rnd(x.len(), 3);
            let w = rnd(width, 4);
            let config = if rms { LayerNormConfig::rms(width).affine(Affine::WeightAndBias) } else { LayerNormConfig::new(width) };
            let mut config = config.causal(true).eps(eps).expect_nothing();
            if let Some(s) = strategy { config = config.strategy(s); }
            let Ok(layer) = GpuLayerNorm::new(&device, &config) else { continue };
            layer.set_weight(&Tensor::from_f32([width], w.clone()).unwrap()).unwrap();
            let up = |v: &Vec<f32>| GpuTensor::upload(&device, &Tensor::from_f32([batch, length, width], v.clone()).unwrap()).unwrap();
            let (tx, tdy) = (up(&x), up(&dy));
            let r = layer.forward_for_training(&device, &tx);
            if let Err(Error::Strategy{..}) = r { continue; }
            let (y, st) = r.unwrap();
            let y = y.download().unwrap().into_values();
            let ey = if rms { reference::causal_rms_norm(&x, length, width, None, None, eps as f64) } else { reference::causal_layer_norm(&x, length, width, None, None, eps as f64, false) };
            let mut bad = 0.0f64; let mut at = 0;
            for i in 0..y.len() { let e = ((y[i] / 1.0) as f64 - ey[i]*w[i%width] as f64).abs() - 6e-8*ey[i].abs()*(w[i%width] as f64).abs(); let e = e / (w[i%width].abs() as f64 * (ey[i].abs()/4.0).max(1.0)+1e-30); if e > bad || e.is_nan() { bad = if e.is_nan() { 1e9 } else { e }; at = i; } }
            worst[0] = worst[0].max(bad);
            if bad > 1e-6 { println!("{batch} {length} {width} {what} rms {rms} eps {eps} {strategy:?}: y off {bad:e} at row {} el {}: {} for {}", at/width, at%width, y[at], ey[at]*w[at%width] as f64); }
            // rstd
            let rs = st.rstd.download().unwrap().into_values();
            for b in 0..batch { if !rms { let e = reference::causal_statistics(&x[b*length*width..(b+1)*length*width], width, eps as f64, false);
                for t in 0..length { let d = (rs[b*length+t] as f64 - e[t].rstd).abs() / e[t].rstd; if e[t].rstd > 0.0 { worst[1] = worst[1].max(d); } if d > 2.5e-7 { println!("{batch} {length} {width} {what} eps {eps}: rstd {t} off {d:e}"); break; } } } }
            let r = layer.backward(&device, &tx, &tdy, None);
            if let Err(Error::Strategy{..}) = r { continue; }
            let g = r.unwrap();
            let dx = g.input.download().unwrap().into_values();
            let e = if rms { reference::causal_rms_norm_backward(&x, &dy, length, width, Some(&w), eps as f64) } else { reference::causal_layer_norm_backward(&x, &dy, length, width, Some(&w), eps as f64, false) };
            let mut bad = 0.0f64; let mut row = 0;
            for r in 0..batch*length { let m = e.input[r*width..(r+1)*width].iter().fold(0.0f64, |m, x| m.max(x.abs()));
               for i in r*width..(r+1)*width { let d = (dx[i] as f64 - e.input[i]).abs() / (m + 1e-37); if !(d <= bad) { bad = if d.is_nan() {1e9} else {d}; row = r; } } }
            worst[2] = worst[2].max(bad);
            if bad > 2e-6 { println!("{batch} {length} {width} {what} rms {rms} eps {eps} {strategy:?}: dx off {bad:e} in row {row}"); }
            for (k, (a, e)) in [(g.weight.unwrap(), &e.weight), (g.bias.unwrap(), &e.bias)].into_iter().enumerate() { let a = a.download().unwrap().into_values(); let m = e.iter().fold(0.0f64, |m, x| m.max(x.abs())); for i in 0..width { let d = (a[i] as f64 - e[i]).abs()/m; if !(d < 1e9) {println!("NAN")} worst[3+k] = worst[3+k].max(d); } }
            }}
        }}
    }
    println!("worst {worst:?}");
}
