# No fused multiply-add, so that every machine gives the same bits.
steer_for_each_isa(io dequantize -ffp-contract=off)
