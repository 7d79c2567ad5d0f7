package host

// Generation is the number of the host: a component has one.
func Generation() int {
	return 0
}
