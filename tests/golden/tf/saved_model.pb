
	
xNoOp