steer_for_each_isa(sae kernels)
