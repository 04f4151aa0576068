steer_for_each_isa(model kernels/kernels)
steer_for_each_isa(model cpu_attention)
steer_for_each_isa(model cpu_loops)
