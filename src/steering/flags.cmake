steer_for_each_isa(steering kernels)
