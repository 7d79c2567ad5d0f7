/* The SDK for the role `transformer`, as one file: compile it with the plugin, and with -I for its folder. */
#include "bindings/transformer/bindings.h"

#include "src/memory.c"
#include "src/tensor.c"
#include "src/float16.c"
#include "src/json.c"
#include "src/answer.c"
#include "src/request.c"
#include "src/host.c"
#include "src/calls.c"
#include "src/role_transformer.c"

#include "bindings/transformer/bindings.c"
